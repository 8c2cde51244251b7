//! Multiples of one point, kept so that multiplying it needs additions only.
//!
//! Variable time: for verification, where everything is public. curve25519-dalek's own tables read every
//! entry of a row to hide which one is used, which takes twice as long.

use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;

/// For each `BITS`-bit digit of a scalar the multiples 1 to 2^(BITS-1) of the point at that digit's place.
/// 215 KB for 6 bits, 640 KB for 8.
pub(super) struct Multiples<const BITS: usize> {
    rows: Vec<Vec<EdwardsPoint>>,
}

impl<const BITS: usize> Multiples<BITS> {
    const ROW: usize = 1 << (BITS - 1);

    pub(super) fn of(point: &EdwardsPoint) -> Self {
        // One bit more than the 253 of a reduced scalar, so that the last digit carries nothing on.
        let digits = 254usize.div_ceil(BITS);
        let mut first = *point;
        let mut rows = Vec::with_capacity(digits);
        for _ in 0..digits {
            let mut row = Vec::with_capacity(Self::ROW);
            let mut multiple = first;
            row.push(multiple);
            for _ in 1..Self::ROW {
                multiple += &first;
                row.push(multiple);
            }
            first = multiple + multiple;
            rows.push(row);
        }
        Multiples { rows }
    }

    /// `sum` and `scalar` times the point.
    pub(super) fn add_multiple(&self, mut sum: EdwardsPoint, scalar: &Scalar) -> EdwardsPoint {
        let bytes = scalar.as_bytes();
        let mut carry = 0;
        for (n, row) in self.rows.iter().enumerate() {
            let (byte, shift) = (n * BITS / 8, n * BITS % 8);
            let at = |byte: usize| usize::from(bytes.get(byte).copied().unwrap_or_default());
            let digit = ((at(byte) | at(byte + 1) << 8) >> shift) % (1 << BITS) + carry;
            // Digits above the middle are taken as negative, which halves the rows.
            carry = usize::from(digit > Self::ROW);
            if carry == 1 {
                if let Some(n) = (2 * Self::ROW - digit).checked_sub(1) {
                    sum -= &row[n];
                }
            } else if let Some(n) = digit.checked_sub(1) {
                sum += &row[n];
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn a_multiple_is_the_product(a: [u8; 32], b: [u8; 32]) {
            let point = EdwardsPoint::mul_base(&Scalar::from_bytes_mod_order(a));
            let (six, eight) = (Multiples::<6>::of(&point), Multiples::<8>::of(&point));
            let mut scalars = vec![Scalar::ZERO, Scalar::ONE, -Scalar::ONE, Scalar::from_bytes_mod_order(b)];
            scalars.extend((0..253).map(|bit| {
                let mut bytes = [0; 32];
                bytes[bit / 8] = 1 << (bit % 8);
                Scalar::from_bytes_mod_order(bytes)
            }));
            scalars.extend((0..32).map(|n| Scalar::from_bytes_mod_order([n * 8; 32])));
            for scalar in scalars {
                let product = point + point * scalar;
                prop_assert_eq!(six.add_multiple(point, &scalar), product);
                prop_assert_eq!(eight.add_multiple(point, &scalar), product);
            }
        }
    }
}
