//! Large memory in huge pages where the system has them: a token reads all of the weights and the
//! cache, and with 4 KB pages much of that time goes into finding the pages.

use std::io;
use std::mem::MaybeUninit;

use memmap2::MmapMut;

/// Zeroed bytes that start at a page.
///
/// # Errors
/// If the system has no memory for it.
pub(super) fn zeroed(bytes: usize) -> io::Result<MmapMut> {
    let memory = MmapMut::map_anon(bytes.max(1))?;
    #[cfg(target_os = "linux")]
    // Only advice: without huge pages the same memory works, somewhat slower.
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}

/// `len` values that `write` writes: nothing is zeroed first.
///
/// # Safety
/// `write` writes every one.
pub(super) unsafe fn written<T: Copy>(len: usize, write: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut values = Vec::with_capacity(len);
    write(&mut values.spare_capacity_mut()[..len]);
    // SAFETY: there is room for `len`, and the caller promises that they have been written.
    unsafe { values.set_len(len) };
    values
}
