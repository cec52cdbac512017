//! From stored bytes to numbers, for every form of storage. Block by block the same operations in the same order as the
//! `gguf` package's own dequantisation, so that results agree with it bit for bit.
//!
//! A stored block of any type is read as [`Block`]s of 32: whole numbers, scales, an offset. From these come the numbers
//! here, and from the same ones the weights that stay quantised in memory.

use half::{bf16, f16};
use pellucid_kernels::{Block, BlockForm};

use super::tensor::TensorType;

/// Elements of a [`Block`].
const GROUP: usize = 32;

/// Writes the numbers of `bytes` to `values`: whole blocks, as many as there are in both.
pub(super) fn to_f32(dtype: TensorType, bytes: &[u8], values: &mut [f32]) {
    match dtype {
        TensorType::F64 => each::<8>(bytes, values, |b| f64::from_le_bytes(b) as f32),
        TensorType::F32 => each::<4>(bytes, values, f32::from_le_bytes),
        TensorType::F16 => each::<2>(bytes, values, |b| f16::from_le_bytes(b).to_f32()),
        TensorType::BF16 => each::<2>(bytes, values, |b| bf16::from_le_bytes(b).to_f32()),
        TensorType::Q8_0 => blocks::<34>(bytes, values, q8_0),
        TensorType::Q4_0 => blocks::<18>(bytes, values, q4_0),
        TensorType::Q4_1 => blocks::<20>(bytes, values, q4_1),
        TensorType::Q5_0 => blocks::<22>(bytes, values, q5_0),
        TensorType::Q5_1 => blocks::<24>(bytes, values, q5_1),
        TensorType::Q4_K => k_blocks::<144>(bytes, values, q4_k),
        TensorType::Q5_K => k_blocks::<176>(bytes, values, q5_k),
        TensorType::Q6_K => k_blocks::<210>(bytes, values, q6_k),
    }
}

/// The form of the [`Block`]s of a type that has any.
pub(super) fn form(dtype: TensorType) -> Option<BlockForm> {
    let form = |four_bits, offsets, two_scales| Some(BlockForm { four_bits, offsets, two_scales });
    match dtype {
        TensorType::F64 | TensorType::F32 | TensorType::F16 | TensorType::BF16 => None,
        TensorType::Q4_0 => form(true, false, false),
        TensorType::Q4_1 | TensorType::Q4_K => form(true, true, false),
        TensorType::Q8_0 | TensorType::Q5_0 => form(false, false, false),
        TensorType::Q5_1 | TensorType::Q5_K => form(false, true, false),
        TensorType::Q6_K => form(false, false, true),
    }
}

/// Elements `32 * index` and on of `bytes`, of a type that has blocks.
///
/// # Panics
/// Where they are not there, or the type has none.
pub(super) fn block(dtype: TensorType, bytes: &[u8], index: usize) -> Block {
    match dtype {
        TensorType::F64 | TensorType::F32 | TensorType::F16 | TensorType::BF16 => {
            unreachable!("{dtype} has no blocks")
        }
        TensorType::Q8_0 => q8_0(&bytes.as_chunks().0[index]),
        TensorType::Q4_0 => q4_0(&bytes.as_chunks().0[index]),
        TensorType::Q4_1 => q4_1(&bytes.as_chunks().0[index]),
        TensorType::Q5_0 => q5_0(&bytes.as_chunks().0[index]),
        TensorType::Q5_1 => q5_1(&bytes.as_chunks().0[index]),
        TensorType::Q4_K => q4_k(&bytes.as_chunks().0[index / K_GROUPS], index % K_GROUPS),
        TensorType::Q5_K => q5_k(&bytes.as_chunks().0[index / K_GROUPS], index % K_GROUPS),
        TensorType::Q6_K => q6_k(&bytes.as_chunks().0[index / K_GROUPS], index % K_GROUPS),
    }
}

fn each<const BYTES: usize>(bytes: &[u8], values: &mut [f32], read: impl Fn([u8; BYTES]) -> f32) {
    for (stored, value) in bytes.as_chunks::<BYTES>().0.iter().zip(values) {
        *value = read(*stored);
    }
}

fn blocks<const BYTES: usize>(bytes: &[u8], values: &mut [f32], read: impl Fn(&[u8; BYTES]) -> Block) {
    for (block, values) in bytes.as_chunks().0.iter().zip(values.as_chunks_mut::<GROUP>().0) {
        *values = read(block).weights();
    }
}

/// Groups of 32 in a block of the K types, which have 256 elements.
const K_GROUPS: usize = 8;

fn k_blocks<const BYTES: usize>(
    bytes: &[u8],
    values: &mut [f32],
    read: impl Fn(&[u8; BYTES], usize) -> Block,
) {
    for (block, values) in bytes.as_chunks().0.iter().zip(values.as_chunks_mut::<{ K_GROUPS * GROUP }>().0) {
        for (group, values) in values.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
            *values = read(block, group).weights();
        }
    }
}

/// The f16 at byte `at`.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn one_scale(scale: f32, offset: Option<f32>, number: impl Fn(usize) -> i8) -> Block {
    Block { numbers: std::array::from_fn(number), scales: [scale; 2], offset }
}

fn q8_0(block: &[u8; 34]) -> Block {
    one_scale(half_at(block, 0), None, |i| block[2 + i] as i8)
}

/// In the types of 32 elements, byte `i` holds element `i` in its low half and element `i + 16` in its high half.
fn four_bits(bytes: &[u8], i: usize) -> u8 {
    if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 }
}

fn q4_0(block: &[u8; 18]) -> Block {
    one_scale(half_at(block, 0), None, |i| four_bits(&block[2..], i) as i8 - 8)
}

fn q4_1(block: &[u8; 20]) -> Block {
    one_scale(half_at(block, 0), Some(half_at(block, 2)), |i| four_bits(&block[4..], i) as i8)
}

/// Element `i` of a type of five bits: the low four from `low`, the fifth from bit `i` of `high`.
fn five_bits(low: &[u8], high: &[u8], i: usize) -> i8 {
    (four_bits(low, i) | (high[i / 8] >> (i % 8) & 1) << 4) as i8
}

fn q5_0(block: &[u8; 22]) -> Block {
    one_scale(half_at(block, 0), None, |i| five_bits(&block[6..], &block[2..6], i) - 16)
}

fn q5_1(block: &[u8; 24]) -> Block {
    one_scale(half_at(block, 0), Some(half_at(block, 2)), |i| five_bits(&block[8..], &block[4..8], i))
}

/// Scale and minimum of one of the eight groups of 32, six bits each in twelve bytes: groups 0 to 3 in the low six
/// bits of bytes 0 to 3 (scales) and 4 to 7 (minima); groups 4 to 7 have their low four bits in bytes 8 to 11 and
/// their high two in the high two bits of those.
fn k_scales(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, least) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        (low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
    };
    (f32::from(scale), f32::from(least))
}

fn q4_k(block: &[u8; 144], group: usize) -> Block {
    let (scale, least) = k_scales(&block[4..16], group);
    // 64 elements share 32 bytes: the first group in the low halves, the second in the high.
    let bytes = &block[16 + group / 2 * 32..][..32];
    let shift = group % 2 * 4;
    let offset = -(half_at(block, 2) * least);
    one_scale(half_at(block, 0) * scale, Some(offset), |i| (bytes[i] >> shift & 15) as i8)
}

fn q5_k(block: &[u8; 176], group: usize) -> Block {
    let (scale, least) = k_scales(&block[4..16], group);
    // As in Q4_K; the fifth bit of element i of group g is bit g of byte i of the high bits.
    let (bytes, high) = (&block[48 + group / 2 * 32..][..32], &block[16..48]);
    let shift = group % 2 * 4;
    let offset = -(half_at(block, 2) * least);
    one_scale(half_at(block, 0) * scale, Some(offset), |i| {
        (bytes[i] >> shift & 15 | (high[i] >> group & 1) << 4) as i8
    })
}

fn q6_k(block: &[u8; 210], group: usize) -> Block {
    let scale = half_at(block, 208);
    // Each half of 128 elements is four quarters of 32: quarters 0 and 1 in the low halves of 64 bytes, 2 and 3 in the
    // high halves; the upper two bits of quarter q are bits 2q and 2q + 1 of 32 bytes. A scale serves 16 elements.
    let (half, quarter) = (group / 4, group % 4);
    let low = &block[half * 64 + quarter % 2 * 32..][..32];
    let high = &block[128 + half * 32..][..32];
    Block {
        numbers: std::array::from_fn(|i| {
            let low = low[i] >> (quarter / 2 * 4) & 15;
            let high = high[i] >> (quarter * 2) & 3;
            (low | high << 4) as i8 - 32
        }),
        scales: [0, 1].map(|part| scale * f32::from(block[192 + 2 * group + part] as i8)),
        offset: None,
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    #[test]
    fn every_type_agrees_with_the_gguf_package_bit_for_bit() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/gguf/blocks.safetensors");
        let file = std::fs::read(path).unwrap();
        let golden = SafeTensors::deserialize(&file).unwrap();
        use TensorType::{BF16, F16, F32, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
        for dtype in [F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K] {
            let bytes = golden.tensor(&format!("{dtype}.bytes")).unwrap();
            let values = golden.tensor(&format!("{dtype}.values")).unwrap();
            let mut ours = vec![f32::NAN; values.data().len() / 4];
            assert_eq!(dtype.bytes_for(ours.len()), Some(bytes.data().len()), "{dtype}");
            to_f32(dtype, bytes.data(), &mut ours);
            for (index, (ours, theirs)) in ours.iter().zip(values.data().as_chunks::<4>().0).enumerate() {
                let theirs = f32::from_le_bytes(*theirs);
                assert_eq!(ours.to_bits(), theirs.to_bits(), "{dtype} {index}: {ours} for {theirs}");
            }
        }
    }

    const TYPES: [TensorType; 8] = {
        use TensorType::{Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
        [Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K]
    };

    /// Blocks of whatever bytes: scales of every size and sign, subnormal, infinite, not a number.
    fn any_blocks(dtype: TensorType, count: usize) -> Vec<u8> {
        let stream = pellucid_kernels::philox::Stream { key: 5, stream: dtype as u64 };
        (0..count * dtype.block().1).map(|index| (stream.word(index as u64) >> 24) as u8).collect()
    }

    /// What the kernels count on: they multiply and add with a single rounding.
    #[test]
    fn products_with_a_scale_are_exact_where_an_offset_is_added() {
        for dtype in TYPES {
            let bytes = any_blocks(dtype, 3000);
            for index in 0..3000 * dtype.block().0 / GROUP {
                let block = block(dtype, &bytes, index);
                for (i, weight) in block.weights().into_iter().enumerate() {
                    let (scale, number) = (block.scales[i / 16], f32::from(block.numbers[i]));
                    let fused = block.offset.map_or(scale * number, |offset| scale.mul_add(number, offset));
                    let same = fused.to_bits() == weight.to_bits() || fused.is_nan() && weight.is_nan();
                    assert!(same, "{dtype}: {scale:e} * {number} + {:?}", block.offset);
                }
            }
        }
    }

    #[test]
    fn packed_blocks_of_whatever_bytes_are_the_numbers_they_unpack_to() {
        let (outputs, inputs) = (40, 256);
        for dtype in TYPES {
            let bytes = any_blocks(dtype, outputs * inputs / dtype.block().0);
            let mut values = vec![0.0; outputs * inputs];
            to_f32(dtype, &bytes, &mut values);
            let row = bytes.len() / outputs;
            let read = |output: usize, index: usize| block(dtype, &bytes[output * row..][..row], index);
            let form = form(dtype).unwrap();
            let packed = pellucid_kernels::PackedMatrix::pack_blocks(inputs, outputs, form, read);
            for (index, value) in values.iter().enumerate() {
                let weight = packed.weight(index % inputs, index / inputs);
                let same = weight.to_bits() == value.to_bits() || weight.is_nan() && value.is_nan();
                assert!(same, "{dtype} {index}: {weight:e} for {value:e}");
            }
        }
    }
}
