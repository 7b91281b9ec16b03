//! The first block of a job by both executors, timed.

use super::{AssembleError, Assembler, BlockAt, Slots, mix::on_cpu, points, rows};
use crate::exec::device::DeviceError;
use crate::job::{Feed, Pipeline, Took};
use std::time::{Duration, Instant};

/// Blocks of each kind: the first one fills shelves and wakes the device.
const RUNS: usize = 4;

/// Something of a block, or `None` where records are to be read first.
type Tried<T> = Result<Option<T>, AssembleError>;

impl Assembler {
    /// Makes the first block of a job of pictures or scenes by the CPU and by the device, with numerics that both could
    /// have. Reads its records, which blocks; counts nothing.
    ///
    /// # Errors
    /// [`AssembleError`]: records that cannot be read or decoded now, a device that fails.
    pub fn compare(&self, feed: &Feed) -> Result<Took, AssembleError> {
        let absent = || AssembleError::Device(DeviceError::Lost("there is none".into()));
        let (device, slabs) = (&self.device.as_ref().ok_or_else(absent)?.0, &self.slabs);
        let mut places = feed.order.step(0);
        places.truncate(feed.unit() as usize);
        let at = &BlockAt { step: 0, slot: 0, places };
        match &feed.pipeline {
            Pipeline::Image(image) => {
                let task = |slots: &mut Slots, device| rows::task(feed, image, at, slots, slabs, device);
                let cpu =
                    |slots: &mut Slots| Ok(task(slots, false)?.map(|task| drop(on_cpu(image, slabs, task))));
                let run = |task| device.run(task).map(drop).map_err(|failed| failed.error);
                self.both(feed, at, cpu, |slots| task(slots, true), run)
            }
            Pipeline::Points(rule) => {
                let cpu = |slots: &mut Slots| Ok(points::by_cpu(feed, rule, at, slots, slabs)?.map(drop));
                // As a job of the device's numerics has it: transformed by the CPU.
                let task = |slots: &mut Slots| points::task(feed, rule, at, slots, slabs, false);
                let run = |(task, _)| device.scenes(task).map(drop).map_err(|failed| failed.error);
                self.both(feed, at, cpu, task, run)
            }
            Pipeline::Tokens(_) => Err(absent()),
        }
    }

    /// The fastest of [`RUNS`] runs of `cpu`, and of `task`, which decodes, together with `run`.
    fn both<T: Send>(
        &self,
        feed: &Feed,
        at: &BlockAt,
        cpu: impl Fn(&mut Slots) -> Tried<()> + Sync,
        task: impl Fn(&mut Slots) -> Tried<T> + Sync,
        run: impl Fn(T) -> Result<(), DeviceError>,
    ) -> Result<Took, AssembleError> {
        let mut slots = Slots::new(at);
        let mut best = Took { cpu: Duration::MAX, device: Duration::MAX };
        for _ in 0..RUNS {
            let cpu = loop {
                slots.read(feed)?;
                let start = Instant::now();
                if self.pool.install(|| cpu(&mut slots))?.is_some() {
                    break start.elapsed();
                }
            };
            let start = Instant::now();
            // Read and replaced above: nothing is missing now.
            let Some(task) = self.pool.install(|| task(&mut slots))? else { continue };
            let decoded = start.elapsed();
            let start = Instant::now();
            run(task)?;
            let mixed = start.elapsed();
            best = Took { cpu: best.cpu.min(cpu), device: best.device.min(decoded.max(mixed)) };
        }
        Ok(best)
    }
}
