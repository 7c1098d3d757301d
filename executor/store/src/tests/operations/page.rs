//! A shared mapping.

use std::fs::File;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

pub(super) const READ: ProtFlags = ProtFlags::PROT_READ;
pub(super) const BOTH: ProtFlags = READ.union(ProtFlags::PROT_WRITE);

/// A page of a file, shared.
pub(super) struct Page(std::ptr::NonNull<u8>);

impl Page {
    const SIZE: usize = 4096;

    pub(super) fn of(file: &File, protection: ProtFlags) -> Self {
        let size = std::num::NonZeroUsize::new(Self::SIZE).expect("is not 0");
        #[expect(unsafe_code, reason = "the mapping is used here only")]
        // SAFETY: the file has the page, and it is unmapped once.
        let page = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, file, 0) };
        Self(page.expect("maps").cast())
    }

    pub(super) fn set(&self, byte: u8) {
        #[expect(unsafe_code, reason = "another mapping may change it")]
        // SAFETY: it is mapped for writing, and has more than one byte.
        unsafe {
            self.0.write_volatile(byte);
        }
    }

    pub(super) fn get(&self) -> u8 {
        #[expect(unsafe_code, reason = "another mapping may change it")]
        // SAFETY: it is mapped for reading, and has more than one byte.
        unsafe {
            self.0.read_volatile()
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "it was mapped here")]
        // SAFETY: nobody else unmaps it.
        unsafe {
            munmap(self.0.cast(), Self::SIZE).ok();
        }
    }
}
