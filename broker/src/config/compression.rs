//! How batches are compressed that are kept, where topics do not say.

use std::fmt;

/// Kafka's `compression.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// As their producers compressed them.
    Producer,
    /// Not at all, whatever their producers did; and so with the others.
    Uncompressed,
    /// With gzip.
    Gzip,
    /// With snappy.
    Snappy,
    /// With lz4.
    Lz4,
    /// With zstd.
    Zstd,
}

impl CompressionType {
    /// In Kafka's order.
    const ALL: [CompressionType; 6] = [
        CompressionType::Uncompressed,
        CompressionType::Zstd,
        CompressionType::Lz4,
        CompressionType::Snappy,
        CompressionType::Gzip,
        CompressionType::Producer,
    ];

    /// Kafka's word for it.
    pub fn name(self) -> &'static str {
        match self {
            CompressionType::Producer => "producer",
            CompressionType::Uncompressed => "uncompressed",
            CompressionType::Gzip => "gzip",
            CompressionType::Snappy => "snappy",
            CompressionType::Lz4 => "lz4",
            CompressionType::Zstd => "zstd",
        }
    }

    /// The number in a batch's attributes; `None`: the producer's.
    pub fn codec(self) -> Option<i16> {
        match self {
            CompressionType::Producer => None,
            CompressionType::Uncompressed => Some(0),
            CompressionType::Gzip => Some(1),
            CompressionType::Snappy => Some(2),
            CompressionType::Lz4 => Some(3),
            CompressionType::Zstd => Some(4),
        }
    }
}

impl fmt::Display for CompressionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for CompressionType {
    type Err = String;

    fn from_str(text: &str) -> Result<CompressionType, String> {
        let names = || CompressionType::ALL.map(CompressionType::name).join(", ");
        let found = CompressionType::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| format!("String must be one of: {}", names()))
    }
}

/// How hard gzip tries, as `compression.gzip.level` says it; `None`: as it does by itself (-1).
///
/// # Errors
///
/// It is none of gzip's levels.
pub fn gzip_level(text: &str) -> Result<Option<u32>, String> {
    match text.trim().parse::<i64>() {
        Ok(-1) => Ok(None),
        Ok(level @ 1..=9) => Ok(u32::try_from(level).ok()),
        _ => Err("Value must be between 1 and 9 or equal to -1".to_owned()),
    }
}
