//! Histograms with a bucket for each power of two, and quantiles of them.

/// The number of a bucket: it holds values above `2^(bucket - 1)` up to `2^bucket`. 0 stands for no bucket: values below 2
/// are left out, as in Tempo.
pub type Bucket = u8;

/// Buckets 0 to 64.
pub const BUCKETS: usize = 65;

#[must_use]
pub fn bucket(value: u64) -> Bucket {
    if value < 2 { 0 } else { (u64::BITS - (value - 1).leading_zeros()) as Bucket }
}

/// The greatest value of a bucket.
#[must_use]
pub fn upper_bound(bucket: usize) -> f64 {
    (bucket as f64).exp2()
}

/// The value below which the share `p` (0 to 1) of the counted values lies. `counts` are pairs of a bucket and a count
/// above 0, ascending. Within a bucket the values are taken to be spread evenly over its logarithm, from the bound of the
/// next lower bucket that is not empty. `None` where nothing was counted.
#[must_use]
pub fn quantile(p: f64, counts: &[(usize, u64)]) -> Option<f64> {
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    if total == 0 {
        return None;
    }
    // Rounded up, and at least one: kinder to small counts.
    let wanted = ((p * total as f64).ceil() as u64).clamp(1, total);
    let mut below = 0;
    let mut lower: Option<usize> = None;
    for (bucket, count) in counts {
        if below + count == wanted {
            return Some(upper_bound(*bucket));
        }
        if below + count > wanted {
            let (top, bottom) = (*bucket as f64, lower.map_or(*bucket as f64 - 1.0, |lower| lower as f64));
            let share = (wanted - below) as f64 / *count as f64;
            return Some((bottom + (top - bottom) * share).exp2());
        }
        below += count;
        lower = Some(*bucket);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_reaches_up_to_a_power_of_two() {
        let of = [0, 1, 2, 3, 4, 5, 8, 9, 1 << 40, (1 << 40) + 1, u64::MAX].map(bucket);
        assert_eq!(of, [0, 0, 1, 2, 2, 3, 3, 4, 40, 41, 64]);
        assert_eq!(upper_bound(10), 1024.0);
    }

    #[test]
    fn a_quantile_at_the_end_of_a_bucket_is_its_bound() {
        assert_eq!(quantile(0.5, &[(3, 5), (5, 5)]), Some(8.0));
        assert_eq!(quantile(1.0, &[(3, 5), (5, 5)]), Some(32.0));
    }

    #[test]
    fn a_quantile_within_a_bucket_is_between_its_bounds_on_a_logarithmic_scale() {
        // 7 of 10: two of five into the upper bucket, from 2^3 to 2^5.
        assert_eq!(quantile(0.7, &[(3, 5), (5, 5)]), Some((3.0_f64 + 2.0 * 0.4).exp2()));
        // Within the lowest: from the next lower power of two.
        assert_eq!(quantile(0.2, &[(3, 5), (5, 5)]), Some((2.0_f64 + 0.4).exp2()));
    }

    #[test]
    fn the_lowest_quantile_takes_one_value_and_of_nothing_there_is_none() {
        assert_eq!(quantile(0.0, &[(4, 4)]), Some((3.0_f64 + 0.25).exp2()));
        assert_eq!(quantile(0.5, &[]), None);
    }
}
