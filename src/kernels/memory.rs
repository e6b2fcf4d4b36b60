//! Large memory in huge pages where the system has them: a token reads all of the weights and the
//! cache, and with 4 KB pages much of that time goes into finding the pages.

use std::io;
use std::ops::{Deref, DerefMut};

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

/// Zeroed f32 values.
pub(super) struct FloatMemory {
    memory: MmapMut,
    len: usize,
}

impl FloatMemory {
    /// # Errors
    /// If the system has no memory for it.
    pub(super) fn zeroed(len: usize) -> io::Result<FloatMemory> {
        let bytes = len.checked_mul(size_of::<f32>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(FloatMemory { memory: zeroed(bytes)?, len })
    }
}

impl Deref for FloatMemory {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the mapping starts at a page, is at least `len` values long and initialised.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for FloatMemory {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), self.len) }
    }
}
