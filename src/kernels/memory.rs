//! Large memory in huge pages where the system has them: a token reads all of the weights and the
//! cache, and with 4 KB pages much of that time goes into finding the pages.

use std::io;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use memmap2::{MmapMut, MmapRaw};

/// On x86-64, and on most kinds of aarch64.
pub(crate) const HUGE_PAGE: usize = 2 << 20;
/// A multiple of every usual size, of which x86-64 has one.
const PAGE: usize = if cfg!(target_arch = "x86_64") { 4 << 10 } else { 64 << 10 };
/// What is mapped at once for [`shared`]: an address range, which takes memory only where it is used.
const MAPPING: usize = 64 << 20;

/// A part of a mapping that others share; it starts at a page.
pub(super) struct Memory {
    mapping: Arc<MmapRaw>,
    start: usize,
    len: usize,
}

/// A mapping that has room, and how much of it is taken.
static WITH_ROOM: Mutex<(Weak<MmapRaw>, usize)> = Mutex::new((Weak::new(), 0));

/// Zeroed bytes that start at a page.
///
/// # Errors
/// If the system has no memory for it.
pub(crate) fn zeroed(bytes: usize) -> io::Result<MmapMut> {
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

/// Zeroed bytes that lie behind those given out before, so that small pieces share huge pages. For what
/// is kept about as long as the rest: a mapping goes back to the system when all in it is dropped.
///
/// # Errors
/// If the system has no memory for it.
pub(super) fn shared(bytes: usize) -> io::Result<Memory> {
    let taken = bytes.next_multiple_of(PAGE);
    let mut with_room = WITH_ROOM.lock().unwrap_or_else(PoisonError::into_inner);
    let (mapping, used) = &*with_room;
    let room = |mapping: &MmapRaw, used: usize| mapping.len().saturating_sub(used);
    if let Some(mapping) = mapping.upgrade().filter(|mapping| room(mapping, *used) >= taken) {
        let start = *used;
        with_room.1 += taken;
        return Ok(Memory { mapping, start, len: bytes });
    }
    let (mapping, start) = map(taken.max(MAPPING))?;
    let mapping = Arc::new(mapping);
    let (old, used) = &*with_room;
    if old.upgrade().is_none_or(|old| room(&old, *used) < room(&mapping, start + taken)) {
        *with_room = (Arc::downgrade(&mapping), start + taken);
    }
    Ok(Memory { mapping, start, len: bytes })
}

/// Gives back to the system what was allocated and dropped again, where the allocator would keep it for
/// later: what a large file left behind when it was parsed. Does nothing where it cannot.
pub fn give_back_dropped() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim touches no memory that is in use, and may be called from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A mapping with at least so many bytes behind the place in it that is answered: the start of a huge
/// page.
fn map(bytes: usize) -> io::Result<(MmapRaw, usize)> {
    let too_much = || io::Error::from(io::ErrorKind::OutOfMemory);
    let mapping = zeroed(bytes.checked_add(HUGE_PAGE).ok_or_else(too_much)?)?;
    let start = mapping.as_ptr().align_offset(HUGE_PAGE).min(HUGE_PAGE);
    Ok((mapping.into(), start))
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: inside the mapping, which is initialised (with zeros) and lives as long as `self`; no
        // other `Memory` has these bytes.
        unsafe { std::slice::from_raw_parts(self.mapping.as_ptr().add(self.start), self.len) }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.as_mut_ptr().add(self.start), self.len) }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Memory {
    fn drop(&mut self) {
        if Arc::strong_count(&self.mapping) == 1 {
            return; // The whole mapping goes.
        }
        // SAFETY: nobody else has these bytes, which are not read again. A system that refuses keeps
        // the memory until the mapping goes.
        let _ = unsafe {
            self.mapping.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, self.start, self.len)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zero_and_do_not_meet() {
        let sizes = [1, 0, 70_000, 3 << 20, 65 << 20, 5];
        let mut pieces: Vec<Memory> = sizes.iter().map(|size| shared(*size).unwrap()).collect();
        for (number, piece) in pieces.iter_mut().enumerate() {
            assert!(piece.iter().all(|byte| *byte == 0));
            piece.fill(number as u8 + 1);
        }
        // What is given back is no other's.
        drop(pieces.pop());
        for (number, (piece, size)) in pieces.iter().zip(sizes).enumerate() {
            assert!(piece.len() == size && piece.iter().all(|byte| *byte == number as u8 + 1));
            assert!(piece.as_ptr().addr().is_multiple_of(4096));
        }
    }
}
