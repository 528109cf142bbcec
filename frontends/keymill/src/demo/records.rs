//! The records of the demo: as good as random, and made again from their number whenever they are needed, so that a gigabyte of
//! them needs no gigabyte.

/// Fills `records` with those from number `first` on, each of `size` bytes.
pub(super) fn fill(records: &mut [u8], size: usize, first: u64) {
    for (number, record) in (first..).zip(records.chunks_exact_mut(size)) {
        let mut state = number;
        for word in record.chunks_mut(8) {
            word.copy_from_slice(&next(&mut state).to_le_bytes()[..word.len()]);
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014), with the number of the record in its seed.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_the_same_wherever_it_stands_and_differs_from_its_neighbours() {
        let (mut many, mut one) = (vec![0; 10 * 100], vec![0; 100]);
        fill(&mut many, 100, 5);
        fill(&mut one, 100, 12);
        assert_eq!(many[700..800], one);
        let distinct: std::collections::HashSet<_> = many.chunks(100).collect();
        assert_eq!(distinct.len(), 10);
    }
}
