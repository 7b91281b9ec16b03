//! How the C library's allocator treats large blocks.
#![allow(unsafe_code)]

/// Blocks up to this size are kept by the process when they are freed, and so much of them.
const KEEP: (i32, i32) = (32 << 20, 128 << 20);

/// Keeps freed memory for the next scene or picture. As it comes, the allocator gives blocks of megabytes back to the system
/// at once; every one is then faulted in again page by page, which cost a third of the time of a scene. Call it once, before
/// threads start.
pub fn keep() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the calls set numbers of the allocator, nothing else.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEEP.0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEEP.1);
    }
}
