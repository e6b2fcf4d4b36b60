//! Memory for what is written to a dump. It comes from the system, not from the heap: large blocks that
//! come and go there beside the model's own make the heap's end shrink and grow with every layer, and
//! then all of the model's pages are fetched anew.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use crate::error::{Error, Result};
use crate::kernels::memory::{HUGE_PAGE, zeroed};

/// Bytes that are used again and again.
pub(super) struct Buffer {
    memory: MmapMut,
    len: usize,
}

impl Buffer {
    /// # Errors
    /// If the system has no memory for it.
    pub fn new(len: usize) -> Result<Buffer> {
        // A step of a generated token takes a little more than the one before.
        let room = if len < HUGE_PAGE { len.next_power_of_two() } else { len.next_multiple_of(HUGE_PAGE) };
        let memory = zeroed(room).map_err(|cause| Error::Memory { what: "what is to be recorded", cause })?;
        Ok(Buffer { memory, len })
    }

    /// Bytes that it has room for.
    pub fn room(&self) -> usize {
        self.memory.len()
    }

    /// Makes it so long; it has room for that.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.room());
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }
}
