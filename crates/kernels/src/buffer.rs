//! Storage for what the vector loops stream: aligned to cache lines, in huge pages where it is large.
#![allow(unsafe_code)]

/// Alignment of a buffer's start, in words: one cache line, which is one AVX-512 register.
const LINE: usize = 16;
/// From this size on (in bytes) the system is asked for huge pages, and the start is aligned to one: first touch of
/// small pages is dear.
const HUGE_PAGE_THRESHOLD: usize = 4 << 20;
/// Words of a huge page.
const HUGE_PAGE: usize = (2 << 20) / size_of::<u32>();

/// A growable vector of 32-bit words (`f32` bits, or pairs of bf16), its start aligned.
///
/// Fresh words are zero; words that were in use before a shrink keep their last value.
#[derive(Default)]
pub(crate) struct AlignedWords {
    /// Holds the words from `start` on. A plain zeroed `Vec`, whose pages the system brings in at first touch, which for
    /// packed weights is by the threads that fill them.
    storage: Vec<u32>,
    start: usize,
    length: usize,
}

impl AlignedWords {
    pub(crate) fn zeroed(length: usize) -> Self {
        let mut words = Self::default();
        words.reserve(length);
        words.length = length;
        words
    }

    /// Grows or shrinks to `length` words; growth is amortised.
    pub(crate) fn resize(&mut self, length: usize) {
        if length > self.capacity() {
            self.reserve(length.max(2 * self.length));
        }
        self.length = length;
    }

    /// Makes room for `length` words in all, without changing the contents.
    pub(crate) fn reserve(&mut self, length: usize) {
        if length <= self.capacity() {
            return;
        }
        let huge = length * size_of::<u32>() >= HUGE_PAGE_THRESHOLD;
        let alignment = if huge { HUGE_PAGE } else { LINE };
        let mut storage = vec![0_u32; length + alignment];
        let start = storage.as_ptr().align_offset(alignment * size_of::<u32>());
        // `align_offset` may refuse in principle; then the loops are slower, not wrong.
        let start = if start > alignment { 0 } else { start };
        if huge {
            advise_huge_pages(&mut storage[start..]);
        }
        storage[start..start + self.length].copy_from_slice(self.words());
        *self = Self { storage, start, length: self.length };
    }

    fn capacity(&self) -> usize {
        self.storage.len() - self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn capacity_bytes(&self) -> usize {
        self.storage.len() * size_of::<u32>()
    }

    pub(crate) fn as_ptr(&self) -> *const u32 {
        self.words().as_ptr()
    }

    pub(crate) fn words(&self) -> &[u32] {
        &self.storage[self.start..self.start + self.length]
    }

    pub(crate) fn words_mut(&mut self) -> &mut [u32] {
        &mut self.storage[self.start..self.start + self.length]
    }

    pub(crate) fn floats(&self) -> &[f32] {
        let words = self.words();
        // SAFETY: f32 has the size and alignment of u32, and every bit pattern is one.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
    }

    pub(crate) fn floats_mut(&mut self) -> &mut [f32] {
        let words = self.words_mut();
        // SAFETY: as in `floats`; every f32 is a u32 too, and the borrow is passed on.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len()) }
    }
}

impl Clone for AlignedWords {
    fn clone(&self) -> Self {
        let mut words = Self::zeroed(self.length);
        words.words_mut().copy_from_slice(self.words());
        words
    }
}

/// Asks for huge pages behind a slice that begins at one.
#[cfg(target_os = "linux")]
fn advise_huge_pages(words: &mut [u32]) {
    // SAFETY: the range lies inside memory that is exclusively borrowed, and MADV_HUGEPAGE changes no contents. Failure
    // (no such pages on this system) costs speed only, so the result is not looked at.
    unsafe {
        libc::madvise(words.as_mut_ptr().cast(), size_of_val(words), libc::MADV_HUGEPAGE);
    }
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_words: &mut [u32]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_aligned_zero_at_first_and_kept_by_growth() {
        for length in [1, 37, 3 << 20] {
            let mut words = AlignedWords::zeroed(length);
            assert!(words.words().iter().all(|word| *word == 0));
            words.words_mut().fill(7);
            words.resize(2 * length + 1);
            assert_eq!(words.as_ptr() as usize % 64, 0);
            assert!(words.words()[..length].iter().all(|word| *word == 7));
            assert!(words.words()[length..].iter().all(|word| *word == 0));
            assert_eq!(words.clone().words(), words.words());
        }
    }
}
