//! Files that are there as a whole or not at all.

use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

/// Bytes that are written at once.
const AT_ONCE: usize = 1 << 17;

/// Writes a file of what is read, beside it and renamed: whatever goes wrong, what was there before is there still. A link stays one:
/// what it leads to is replaced. What is no plain file (a pipe, a device) is written to as it is.
///
/// # Errors
/// Those of the reader as they are, and those of the file.
pub fn replace(path: &Path, mut from: impl Read) -> io::Result<()> {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if std::fs::metadata(&path).is_ok_and(|there| !there.is_file()) {
        let mut there = std::fs::OpenOptions::new().write(true).open(&path)?;
        return write(&mut there, &mut from);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".pellucid-");
    // It is as readable as any other file of the user's.
    #[cfg(unix)]
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    #[cfg(unix)]
    builder.permissions(permissions);
    let mut beside = builder.tempfile_in(folder)?;
    write(beside.as_file_mut(), &mut from)?;
    beside.persist(&path)?;
    Ok(())
}

fn write(file: &mut std::fs::File, from: &mut impl Read) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(AT_ONCE, file);
    io::copy(from, &mut writer)?;
    writer.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that breaks off after some bytes.
    struct Broken(usize);

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("it broke off"));
            }
            let read = buffer.len().min(self.0);
            self.0 -= read;
            Ok(read)
        }
    }

    #[test]
    fn what_was_there_stays_until_all_of_the_new_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace(&path, &b"old"[..]).unwrap();
        let error = replace(&path, Broken(3 * AT_ONCE)).unwrap_err();
        assert_eq!(error.to_string(), "it broke off");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        let new = vec![7; 2 * AT_ONCE + 1];
        replace(&path, new.as_slice()).unwrap();
        assert!(std::fs::read(&path).unwrap() == new);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something is left beside it");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_one_and_a_pipe_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        std::fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        replace(&link, &b"new"[..]).unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
        // A pipe by its name, as a shell's `>(...)` gives it.
        let (mut out, into) = io::pipe().unwrap();
        let name = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&into));
        replace(Path::new(&name), &b"through"[..]).unwrap();
        drop(into);
        let mut read = String::new();
        out.read_to_string(&mut read).unwrap();
        assert_eq!(read, "through");
    }
}
