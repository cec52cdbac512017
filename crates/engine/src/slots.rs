//! What the slots of a pass hold.

use std::sync::Arc;

/// A slot's value for the packed tokens of a pass.
#[derive(Clone, Debug)]
pub(crate) enum SlotValue {
    /// Numbers: a view of a buffer.
    Rows(Rows),
    /// Token ids or positions, one for each token.
    Ids(Arc<Vec<i64>>),
    /// Attention's scores or pattern of the sequences that materialise them, `[heads, length, context]` each.
    Ragged(Vec<Option<Arc<Vec<f32>>>>),
}

/// A view of a buffer: `[tokens, inner dimensions…]` with strides in elements.
///
/// Buffers are shared between slots that see the same storage; a writer copies first unless it is alone. So a value that
/// was read before an edit never changes.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    pub buffer: Arc<Vec<f32>>,
    pub offset: usize,
    /// From one token to the next.
    pub token_stride: usize,
    /// Size and stride of each inner dimension.
    pub inner: Vec<(usize, usize)>,
}

impl Rows {
    /// Rows that stand end to end.
    pub fn contiguous(buffer: Vec<f32>, inner: &[usize]) -> Rows {
        let mut stride = 1;
        let mut dimensions: Vec<(usize, usize)> = Vec::with_capacity(inner.len());
        for &size in inner.iter().rev() {
            dimensions.push((size, stride));
            stride *= size;
        }
        dimensions.reverse();
        Rows { buffer: Arc::new(buffer), offset: 0, token_stride: stride, inner: dimensions }
    }

    /// Some of `total` tokens: the same storage if they are a good part of it, else a copy, so that few rows do not keep
    /// many.
    pub fn part(&self, first: usize, count: usize, total: usize) -> Rows {
        if count * 2 >= total {
            return Rows { offset: self.offset + first * self.token_stride, ..self.clone() };
        }
        let mut values = vec![0.0; count * self.width()];
        self.copy_rows(first, count, &mut values);
        Rows::contiguous(values, &self.inner.iter().map(|dimension| dimension.0).collect::<Vec<_>>())
    }

    /// Elements of one token.
    pub fn width(&self) -> usize {
        self.inner.iter().map(|dimension| dimension.0).product()
    }

    /// Whether a token's elements stand end to end.
    pub fn is_row_contiguous(&self) -> bool {
        let mut stride = 1;
        self.inner.iter().rev().all(|&(size, own)| {
            let fits = size == 1 || own == stride;
            stride *= size;
            fits
        })
    }

    /// The elements from the first token on, when each token's stand end to end.
    pub fn strided(&self) -> &[f32] {
        &self.buffer[self.offset.min(self.buffer.len())..]
    }

    /// Copies one token's elements out, in row-major order.
    pub fn copy_row(&self, token: usize, out: &mut [f32]) {
        let start = self.offset + token * self.token_stride;
        if self.is_row_contiguous() {
            out.copy_from_slice(&self.buffer[start..start + out.len()]);
        } else {
            self.walk(start, |place, from| out[place] = self.buffer[from]);
        }
    }

    /// Copies tokens out, end to end.
    pub fn copy_rows(&self, first: usize, count: usize, out: &mut [f32]) {
        let width = self.width();
        if self.is_row_contiguous() && self.token_stride == width {
            let start = self.offset + first * width;
            out.copy_from_slice(&self.buffer[start..start + count * width]);
            return;
        }
        for (row, out) in out.chunks_exact_mut(width.max(1)).enumerate().take(count) {
            self.copy_row(first + row, out);
        }
    }

    /// The same rows in a buffer of their own, end to end.
    pub fn packed(&self, tokens: usize) -> Vec<f32> {
        let mut out = vec![0.0; tokens * self.width()];
        self.copy_rows(0, tokens, &mut out);
        out
    }

    /// Writes one token's elements, given in row-major order; copies the buffer first if another slot sees it.
    pub fn write_row(&mut self, tokens: usize, token: usize, values: &[f32]) {
        if Arc::get_mut(&mut self.buffer).is_none() {
            let inner: Vec<usize> = self.inner.iter().map(|dimension| dimension.0).collect();
            *self = Rows::contiguous(self.packed(tokens), &inner);
        }
        let start = self.offset + token * self.token_stride;
        let contiguous = self.is_row_contiguous();
        let places: Vec<(usize, usize)> = if contiguous {
            Vec::new()
        } else {
            let mut places = Vec::with_capacity(values.len());
            self.walk(start, |place, to| places.push((place, to)));
            places
        };
        let Some(buffer) = Arc::get_mut(&mut self.buffer) else { return };
        if contiguous {
            buffer[start..start + values.len()].copy_from_slice(values);
        } else {
            for (place, to) in places {
                buffer[to] = values[place];
            }
        }
    }

    /// Calls with each element's row-major place and its place in the buffer.
    fn walk(&self, start: usize, mut visit: impl FnMut(usize, usize)) {
        let width = self.width();
        for place in 0..width {
            let (mut rest, mut at) = (place, start);
            for &(size, stride) in self.inner.iter().rev() {
                at += rest % size * stride;
                rest /= size;
            }
            visit(place, at);
        }
    }
}

/// Buffers that were used and can be used again: the first touch of fresh memory is dear.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    free: Vec<Vec<f32>>,
}

/// Buffers kept for use again.
const KEPT: usize = 24;

impl BufferPool {
    /// A buffer of that length; its contents are whatever they were.
    pub fn take(&mut self, length: usize) -> Vec<f32> {
        let fitting = self.free.iter().enumerate().filter(|(_, buffer)| {
            buffer.capacity() >= length && buffer.capacity() <= length.saturating_mul(2).max(4096)
        });
        let best = fitting.min_by_key(|(_, buffer)| buffer.capacity()).map(|(place, _)| place);
        match best {
            Some(place) => {
                let mut buffer = self.free.swap_remove(place);
                if buffer.len() < length {
                    buffer.resize(length, 0.0);
                } else {
                    buffer.truncate(length);
                }
                buffer
            }
            None => vec![0.0; length],
        }
    }

    /// Gives a slot's buffer back, unless another slot still sees it.
    pub fn give(&mut self, value: SlotValue) {
        let SlotValue::Rows(rows) = value else { return };
        if let Ok(buffer) = Arc::try_unwrap(rows.buffer) {
            if self.free.len() >= KEPT {
                self.free.remove(0);
            }
            self.free.push(buffer);
        }
    }
}
