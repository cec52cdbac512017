//! A file mapped into memory, read-only: the one place where the workspace maps files.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;

/// The bytes of a file, mapped rather than read: a page comes into memory when it is first touched, and may leave
/// again when the system needs the room.
///
/// The file is to be left alone while it is mapped. Overwriting it in place shows through, and truncating it makes
/// a later access end the process (`SIGBUS`), as with every program that maps its weights; replacing it by a
/// rename, which is how downloads land, is harmless.
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
}

impl MappedFile {
    /// Maps the whole file at `path`.
    ///
    /// # Errors
    /// What opening or mapping reports; a folder is refused as `InvalidInput`.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // SAFETY: the map is private to this value, read-only and never longer than the file was when it was made.
        // That nobody changes the file meanwhile cannot be enforced by any program; the type's documentation asks
        // it of the user, and all that is read from the map is treated as untrusted bytes, never as a Rust value
        // with invariants.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { map })
    }

    /// Lets the system take back the pages that hold the file; they are read again when they are next touched.
    /// For use after the weights have been packed into another form. Where the system has no such call, nothing
    /// happens.
    pub fn advise_dont_need(&self) {
        self.advise_dont_need_range(0..self.map.len());
    }

    /// [`MappedFile::advise_dont_need`] for the pages that hold `range`, in bytes. A range beyond the file is cut.
    pub fn advise_dont_need_range(&self, range: Range<usize>) {
        let end = range.end.min(self.map.len());
        if range.start >= end {
            return;
        }
        #[cfg(unix)]
        {
            // SAFETY: `MADV_DONTNEED` may lose changes of a writable private mapping; this one is read-only, so
            // its pages are only read again from the file. A refusal costs nothing but memory: it is ignored.
            #[allow(unsafe_code)]
            let _ = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    range.start,
                    end - range.start,
                )
            };
        }
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(test)]
mod tests {
    use super::MappedFile;

    #[test]
    fn bytes_are_the_files_and_survive_dropped_pages() {
        let path = std::env::temp_dir().join(format!("pellucid-mapped-{}", std::process::id()));
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let map = MappedFile::open(&path).unwrap();
        assert_eq!(&map[..], &bytes[..]);
        map.advise_dont_need_range(5_000..70_000);
        map.advise_dont_need_range(90_000..900_000);
        map.advise_dont_need();
        assert_eq!(&map[..], &bytes[..]);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_folder_and_a_missing_file_are_errors() {
        assert!(MappedFile::open(std::env::temp_dir()).is_err());
        assert!(MappedFile::open("/no/such/file").is_err());
    }
}
