//! The first block of a job by both executors, timed.

use super::{AssembleError, Assembler, BlockAt, Slots, mix::on_cpu, rows};
use crate::exec::device::DeviceError;
use crate::job::{Feed, Took};
use std::time::{Duration, Instant};

/// Blocks of each kind: the first one fills shelves and wakes the device.
const RUNS: usize = 4;

impl Assembler {
    /// Makes the first block of a job of pictures by the CPU and by the device. Reads its records, which blocks; counts
    /// nothing.
    ///
    /// # Errors
    /// [`AssembleError`]: records that cannot be read or decoded now, a device that fails.
    pub fn compare(&self, feed: &Feed) -> Result<Took, AssembleError> {
        let absent = || AssembleError::Device(DeviceError::Lost("there is none".into()));
        let (image, device) = (feed.image().ok_or_else(absent)?, self.device.as_ref().ok_or_else(absent)?);
        let mut places = feed.order.step(0);
        places.truncate(feed.unit() as usize);
        let at = BlockAt { step: 0, slot: 0, places };
        let mut slots = Slots::new(&at);
        let mut best = Took { cpu: Duration::MAX, device: Duration::MAX };
        for _ in 0..RUNS {
            let cpu = loop {
                slots.read(feed)?;
                let start = Instant::now();
                let made = self.pool.install(|| -> Result<_, AssembleError> {
                    let task = rows::task(feed, image, &at, &mut slots, &self.slabs, false)?;
                    Ok(task.map(|task| on_cpu(image, &self.slabs, task)))
                })?;
                if made.is_some() {
                    break start.elapsed();
                }
            };
            let start = Instant::now();
            let task = self.pool.install(|| rows::task(feed, image, &at, &mut slots, &self.slabs, true))?;
            // Read and replaced above: nothing is missing now.
            let Some(task) = task else { continue };
            let decoded = start.elapsed();
            let start = Instant::now();
            device.0.run(task).map_err(|failed| failed.error)?;
            let mixed = start.elapsed();
            best = Took { cpu: best.cpu.min(cpu), device: best.device.min(decoded.max(mixed)) };
        }
        Ok(best)
    }
}
