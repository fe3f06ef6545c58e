//! Kubernetes quantities, as far as two of them need comparing.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The number that a quantity such as `500m`, `64Mi` or `1e3` means; `None` if it is none.
pub(crate) fn value(quantity: &Quantity) -> Option<f64> {
    let text = quantity.0.as_str();
    let number_end = text
        .char_indices()
        .find(|(at, c)| !(c.is_ascii_digit() || *c == '.' || (*at == 0 && (*c == '-' || *c == '+'))))
        .map_or(text.len(), |(at, _)| at);
    let (number, suffix) = text.split_at_checked(number_end)?;
    let number: f64 = number.parse().ok()?;
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            10f64.powi(digits.parse().ok()?)
        }
    };
    Some(number * factor).filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (text, expected) in [
            ("500m", Some(0.5)),
            ("64Mi", Some(67_108_864.0)),
            ("1e3", Some(1000.0)),
            ("1E", Some(1e18)),
            ("-1", Some(-1.0)),
            (".5", Some(0.5)),
            ("", None),
            ("Mi", None),
            ("1 Mi", None),
            ("1Mib", None),
            ("1-2", None),
            ("1e999", None),
        ] {
            assert_eq!(value(&Quantity(text.to_owned())), expected, "{text}");
        }
    }
}
