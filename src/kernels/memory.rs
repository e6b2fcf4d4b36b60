//! Large memory in huge pages where the system has them: a token reads all of the weights and the
//! cache, and with 4 KB pages much of that time goes into finding the pages.

use std::io;

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
