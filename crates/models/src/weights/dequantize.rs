//! From stored bytes to f32, for every form of storage. Block by block the same operations in the same order as the
//! `gguf` package's own dequantisation, so that results agree with it bit for bit.

use half::{bf16, f16};

use super::tensor::TensorType;

/// Writes the numbers of `bytes` to `values`: whole blocks, as many as there are in both.
pub(super) fn to_f32(dtype: TensorType, bytes: &[u8], values: &mut [f32]) {
    match dtype {
        TensorType::F64 => each::<8>(bytes, values, |b| f64::from_le_bytes(b) as f32),
        TensorType::F32 => each::<4>(bytes, values, f32::from_le_bytes),
        TensorType::F16 => each::<2>(bytes, values, |b| f16::from_le_bytes(b).to_f32()),
        TensorType::BF16 => each::<2>(bytes, values, |b| bf16::from_le_bytes(b).to_f32()),
        TensorType::Q8_0 => blocks::<34, 32>(bytes, values, q8_0),
        TensorType::Q4_0 => blocks::<18, 32>(bytes, values, q4_0),
        TensorType::Q4_1 => blocks::<20, 32>(bytes, values, q4_1),
        TensorType::Q5_0 => blocks::<22, 32>(bytes, values, q5_0),
        TensorType::Q5_1 => blocks::<24, 32>(bytes, values, q5_1),
        TensorType::Q4_K => blocks::<144, 256>(bytes, values, q4_k),
        TensorType::Q5_K => blocks::<176, 256>(bytes, values, q5_k),
        TensorType::Q6_K => blocks::<210, 256>(bytes, values, q6_k),
    }
}

fn each<const BYTES: usize>(bytes: &[u8], values: &mut [f32], read: impl Fn([u8; BYTES]) -> f32) {
    for (stored, value) in bytes.as_chunks::<BYTES>().0.iter().zip(values) {
        *value = read(*stored);
    }
}

fn blocks<const BYTES: usize, const ELEMENTS: usize>(
    bytes: &[u8],
    values: &mut [f32],
    read: impl Fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) {
    for (block, values) in bytes.as_chunks::<BYTES>().0.iter().zip(values.as_chunks_mut::<ELEMENTS>().0) {
        read(block, values);
    }
}

/// The f16 at byte `at`.
fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn q8_0(block: &[u8; 34], values: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for (stored, value) in block[2..].iter().zip(values) {
        *value = f32::from(*stored as i8) * scale;
    }
}

/// In the types of 32 elements, byte `i` holds element `i` in its low half and element `i + 16` in its high half.
fn q4_0(block: &[u8; 18], values: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    for (i, byte) in block[2..].iter().enumerate() {
        values[i] = scale * (f32::from(byte & 15) - 8.0);
        values[i + 16] = scale * (f32::from(byte >> 4) - 8.0);
    }
}

fn q4_1(block: &[u8; 20], values: &mut [f32; 32]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    for (i, byte) in block[4..].iter().enumerate() {
        values[i] = scale * f32::from(byte & 15) + least;
        values[i + 16] = scale * f32::from(byte >> 4) + least;
    }
}

/// Element `i` of a type of five bits: the low four from `low`, the fifth from bit `i` of `high`.
fn five_bits(low: &[u8], high: u32, i: usize) -> f32 {
    let low = if i < 16 { low[i] & 15 } else { low[i - 16] >> 4 };
    f32::from(low | ((high >> i & 1) as u8) << 4)
}

fn q5_0(block: &[u8; 22], values: &mut [f32; 32]) {
    let scale = half_at(block, 0);
    let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for (i, value) in values.iter_mut().enumerate() {
        *value = scale * (five_bits(&block[6..], high, i) - 16.0);
    }
}

fn q5_1(block: &[u8; 24], values: &mut [f32; 32]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for (i, value) in values.iter_mut().enumerate() {
        *value = scale * five_bits(&block[8..], high, i) + least;
    }
}

/// Scale and minimum of each of the eight groups of 32, six bits each in twelve bytes: groups 0 to 3 in the low six
/// bits of bytes 0 to 3 (scales) and 4 to 7 (minima); groups 4 to 7 have their low four bits in bytes 8 to 11 and
/// their high two in the high two bits of those.
fn k_scales(packed: &[u8]) -> [(f32, f32); 8] {
    std::array::from_fn(|group| {
        let (scale, least) = if group < 4 {
            (packed[group] & 63, packed[group + 4] & 63)
        } else {
            let low = packed[group + 4];
            (low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
        };
        (f32::from(scale), f32::from(least))
    })
}

fn q4_k(block: &[u8; 144], values: &mut [f32; 256]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    let scales = k_scales(&block[4..16]);
    // 64 elements share 32 bytes: the first group in the low halves, the second in the high.
    for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (d, m) = (scale * scales[group].0, least * scales[group].1);
        let bytes = &block[16 + group / 2 * 32..];
        let shift = group % 2 * 4;
        for (value, byte) in values.iter_mut().zip(bytes) {
            *value = d * f32::from(byte >> shift & 15) - m;
        }
    }
}

fn q5_k(block: &[u8; 176], values: &mut [f32; 256]) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    let scales = k_scales(&block[4..16]);
    // As in Q4_K; the fifth bit of element i of group g is bit g of byte i of the high bits.
    for (group, values) in values.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (d, m) = (scale * scales[group].0, least * scales[group].1);
        let bytes = &block[48 + group / 2 * 32..];
        let shift = group % 2 * 4;
        for ((value, byte), high) in values.iter_mut().zip(bytes).zip(&block[16..48]) {
            *value = d * f32::from(byte >> shift & 15 | (high >> group & 1) << 4) - m;
        }
    }
}

fn q6_k(block: &[u8; 210], values: &mut [f32; 256]) {
    let scale = half_at(block, 208);
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    // Each half of 128 elements is four quarters of 32: quarters 0 and 1 in the low halves of 64 bytes, 2 and 3 in the
    // high halves; the upper two bits of quarter q are bits 2q and 2q + 1 of 32 bytes. A scale serves 16 elements.
    for (i, value) in values.iter_mut().enumerate() {
        let (half, quarter, at) = (i / 128, i / 32 % 4, i % 32);
        let low = low[half * 64 + quarter % 2 * 32 + at] >> (quarter / 2 * 4) & 15;
        let high = high[half * 32 + at] >> (quarter * 2) & 3;
        let d = scale * f32::from(scales[i / 16] as i8);
        *value = d * (f32::from(low | high << 4) - 32.0);
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
}
