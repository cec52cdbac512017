//! What the process's allocator does with freed memory.

/// From this size on (in bytes) freed memory at the heap's end goes back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TRIM: i32 = 512 << 20;
/// Below this size (in bytes) values come from the heap, not from pages of their own: the most that glibc takes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_PAGES: i32 = 32 << 20;

/// Lets this process keep the memory that values free, for the values that come next, instead of giving it back to the
/// system at each step: the first touch of fresh pages costs several times what computing on them does. Up to 512 MB are
/// kept; larger values always have pages of their own, and give them back.
///
/// A setting of the whole process, so it is for programs to choose and not for a library; and for those that compute in one thread: each
/// of glibc's arenas keeps so much, and a service's threads have many. It speaks to glibc's allocator; elsewhere it does nothing.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: `mallopt` sets two numbers of the allocator, under its own lock. A refusal (0) leaves them as they were,
        // which costs speed only.
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM);
        }
    }
}
