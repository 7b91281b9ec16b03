//! Numbers of bytes as people write them.

use serde::{Deserialize, Deserializer, de::Error as _};

/// A number of bytes: an integer, or text such as "512MiB" or "2GiB".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub usize);

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let wrong = || format!("`{text}` is no size, want bytes or a number with KiB, MiB or GiB");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let shift = match text[digits..].trim() {
            "" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(wrong()),
        };
        let number: usize = text[..digits].parse().map_err(|_| wrong())?;
        number.checked_mul(1 << shift).map(Size).ok_or_else(wrong)
    }
}

impl<'a> Deserialize<'a> for Size {
    fn deserialize<D: Deserializer<'a>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Number(u64),
            Text(String),
        }
        match Given::deserialize(input)
            .map_err(|_| D::Error::custom("want bytes or text such as \"2GiB\""))?
        {
            Given::Number(n) => Ok(Size(n as usize)),
            Given::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}
