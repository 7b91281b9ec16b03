//! Blocks on the processor: its threads take pictures, then rows, side by side.
//!
//! A thread does all ops of its picture, so that what one leaves in the cache the next one finds. libtorch's own threads
//! share each op instead, which on one picture is over before they are awake, or keep their cores busy with waiting.

use super::{DeviceError, Place, host, rounds, shape, store, threads, views};
use crate::batch::Raster;
use crate::exec::Format;
use crate::exec::device::{Input, Picture};
use crate::plan::Row;
use rayon::prelude::*;
use std::{ops::Deref, thread::JoinHandle};

/// Bytes of f32 that a chunk of rows may take: about a second-level cache.
const CHUNK: usize = 2 << 20;

/// Threads, each of which does alone what libtorch does for it. They have ended when this is dropped: one that still ends
/// when the process does finds libtorch gone.
#[derive(Debug)]
pub(super) struct Pool {
    threads: rayon::ThreadPool,
    _ends: Ends, // dropped after the pool has told its threads to end
}

#[derive(Debug)]
struct Ends(Vec<JoinHandle<()>>);

impl Pool {
    /// So many threads, 0: one for each core.
    ///
    /// # Errors
    /// [`DeviceError::Failed`] when the system gives no threads.
    pub(super) fn new(threads: usize) -> Result<Pool, DeviceError> {
        // Asked for once, this thread's own number stays, whatever those of the pool do: scenes are made with it.
        let _ = tch::get_num_threads();
        let mut ends = Ends(Vec::new());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).start_handler(|_| threads::alone());
        let pool = pool.spawn_handler(|thread| {
            let name = format!("mixfeed-torch-{}", thread.index());
            ends.0.push(std::thread::Builder::new().name(name).spawn(|| thread.run())?);
            Ok(())
        });
        let threads = pool.build();
        let failed = |error| DeviceError::Failed(format!("cannot start threads: {error}"));
        Ok(Pool { threads: threads.map_err(failed)?, _ends: ends })
    }
}

impl Deref for Pool {
    type Target = rayon::ThreadPool;
    fn deref(&self) -> &rayon::ThreadPool {
        &self.threads
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        // A panic of theirs was told where it was awaited.
        self.0.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// What blocks have in common.
#[derive(Debug)]
pub(super) struct Here {
    /// Bytes of f32 that a chunk of rows may take.
    pub(super) chunk: usize,
    /// Clean rows of the block that is made; as large as the largest one so far.
    clean: Vec<u8>,
}

impl Default for Here {
    fn default() -> Here {
        Here { chunk: CHUNK, clean: Vec::new() }
    }
}

impl Here {
    /// Clean rows of a block, which was checked.
    pub(super) fn clean<'a, B: AsRef<[u8]> + Sync>(
        &'a mut self,
        pool: &'a Pool,
        place: &Place,
        input: &'a Input<B>,
        raster: &Raster,
    ) -> Result<Clean<'a>, DeviceError> {
        let (rows, held) = match input {
            Input::Clean(clean) => (clean.as_ref(), clean.as_ref().len() / raster.len()),
            Input::Decoded(pictures) => {
                let wanted = pictures.len() * raster.len();
                if self.clean.len() < wanted {
                    self.clean.resize(wanted, 0);
                }
                let rows = &mut self.clean[..wanted];
                pool.install(|| finish(place, pictures, raster, rows))?;
                (&*rows, pictures.len())
            }
        };
        Ok(Clean { pool, chunk: self.chunk, rows, held })
    }
}

fn finish<B: AsRef<[u8]> + Sync>(
    place: &Place,
    pictures: &[Picture<B>],
    raster: &Raster,
    rows: &mut [u8],
) -> Result<(), DeviceError> {
    let each = pictures.par_iter().zip(rows.par_chunks_exact_mut(raster.len()));
    each.with_max_len(1).try_for_each(|(picture, row)| views::one(place, picture, raster, row))
}

/// Clean rows in this process's memory.
pub(super) struct Clean<'a> {
    pool: &'a Pool,
    chunk: usize,
    rows: &'a [u8],
    held: usize,
}

impl Clean<'_> {
    /// Mixes `rows` into `out`.
    pub(super) fn mix(
        &self,
        place: &Place,
        rows: &[Row],
        format: &Format,
        out: &mut [u8],
    ) -> Result<(), DeviceError> {
        let elements = format.raster.len();
        let chunk = (self.chunk / (4 * elements)).max(1);
        let bytes = chunk * elements * format.dtype.size();
        let shape = shape(self.held, &format.raster);
        let mix = |(rows, out): (&[Row], &mut [u8])| {
            host::seen(self.rows, &shape, |clean| {
                host::copy_out(&store(place, rounds::run(place, rows, clean, format)?, format)?, out)
            })
        };
        self.pool.install(|| {
            let chunks = rows.par_chunks(chunk).zip(out.par_chunks_mut(bytes));
            chunks.with_max_len(1).try_for_each(mix)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_the_pool_work_alone() {
        assert_eq!(Pool::new(3).expect("threads").broadcast(|_| tch::get_num_threads()), [1; 3]);
    }
}
