//! Storage for what the vector loops stream: aligned to cache lines, in huge pages where it is large.
#![allow(unsafe_code)]

/// One cache line of words. A `Vec` of them is aligned without any allocation code of our own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; WORDS_PER_LINE]);

const WORDS_PER_LINE: usize = 16;
/// From this size on (in bytes) the kernel is asked for huge pages: first touch of small pages is dear.
const HUGE_PAGE_THRESHOLD: usize = 4 << 20;

/// A growable, zero-filled vector of 32-bit words (`f32` bits, or pairs of bf16), 64-byte aligned.
#[derive(Clone, Default)]
pub(crate) struct AlignedWords {
    lines: Vec<Line>,
    length: usize,
}

impl AlignedWords {
    pub(crate) fn zeroed(length: usize) -> Self {
        let mut words = Self::default();
        words.resize(length);
        words
    }

    /// Grows (with zeros) or shrinks to `length` words; growth is amortised.
    pub(crate) fn resize(&mut self, length: usize) {
        let lines = length.div_ceil(WORDS_PER_LINE);
        if lines > self.lines.capacity() {
            self.lines.reserve(lines - self.lines.len());
            advise_huge_pages(&mut self.lines);
        }
        // Shrinking keeps stale words only inside the last line; clear them so that growth finds zeros again.
        if length < self.length {
            let end = (lines * WORDS_PER_LINE).min(self.length);
            self.words_mut()[length..end].fill(0);
        }
        self.lines.resize(lines, Line([0; WORDS_PER_LINE]));
        self.length = length;
    }

    /// Makes room for `length` words in all, without changing the contents.
    pub(crate) fn reserve(&mut self, length: usize) {
        let lines = length.div_ceil(WORDS_PER_LINE);
        if lines > self.lines.capacity() {
            self.lines.reserve_exact(lines - self.lines.len());
            advise_huge_pages(&mut self.lines);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn capacity_bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>()
    }

    pub(crate) fn as_ptr(&self) -> *const u32 {
        self.lines.as_ptr().cast()
    }

    pub(crate) fn words(&self) -> &[u32] {
        // SAFETY: `lines` holds at least `length` initialised words (`resize` keeps that), contiguous because `Line`
        // is a repr(C) array without padding.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }

    pub(crate) fn words_mut(&mut self) -> &mut [u32] {
        // SAFETY: as in `words`, and the exclusive borrow of `self` covers the lines.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }

    pub(crate) fn floats(&self) -> &[f32] {
        // SAFETY: as in `words`; every bit pattern is an f32, of the same size and a smaller alignment than `Line`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }

    pub(crate) fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `floats`, and the exclusive borrow of `self` covers the lines.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}

#[cfg(target_os = "linux")]
fn advise_huge_pages(lines: &mut Vec<Line>) {
    const PAGE: usize = 4096;
    let bytes = lines.capacity() * size_of::<Line>();
    if bytes < HUGE_PAGE_THRESHOLD {
        return;
    }
    let start = (lines.as_mut_ptr() as usize).next_multiple_of(PAGE);
    let end = lines.as_ptr() as usize + bytes;
    // SAFETY: the range lies inside the allocation that `lines` owns, and MADV_HUGEPAGE changes no contents. Failure
    // (no such pages on this system) costs speed only, so the result is not looked at.
    unsafe {
        libc::madvise(start as *mut libc::c_void, end.saturating_sub(start), libc::MADV_HUGEPAGE);
    }
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_lines: &mut Vec<Line>) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_aligned_and_zero_after_shrinking_and_growing_again() {
        let mut words = AlignedWords::zeroed(37);
        assert_eq!(words.as_ptr() as usize % 64, 0);
        words.words_mut().fill(7);
        words.resize(3);
        words.resize(3000);
        assert_eq!(words.words()[..3], [7, 7, 7]);
        assert!(words.words()[3..].iter().all(|word| *word == 0));
    }
}
