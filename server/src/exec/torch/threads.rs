//! How many threads libtorch does one op with.

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Lets libtorch do what it does for this thread on this thread alone. How a sum is cut into the parts of several threads
/// changes bits; and where threads hold a picture each, sharing one of its ops costs more than the op.
pub(in crate::exec) fn alone() {
    /// Whoever changes libtorch's number of threads puts it back before another one looks.
    static CHANGING: Mutex<()> = Mutex::new(());
    if ALONE.replace(true) {
        return;
    }
    let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = tch::get_num_threads();
    tch::set_num_threads(1);
    // The number is this thread's, and also what threads that come later begin with: another thread puts that back.
    let restored = std::thread::Builder::new().spawn(move || tch::set_num_threads(before));
    if restored.map(|thread| thread.join().is_ok()).is_ok_and(|done| done) {
        return;
    }
    tracing::warn!("libtorch stays at one thread for those that begin from now on");
}
