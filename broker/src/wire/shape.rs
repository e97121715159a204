//! The shape of a request, as the codec reads it: fields in order, each with the versions that have it. Each API
//! declares its own; a request is walked along it before it is decoded.
//!
//! The codec reserves room for as many elements as an array announces. This walk, which allocates nothing,
//! refuses an array that announces more elements than bytes are left, a text or blob that
//! is longer than what is left, a known tagged field whose size is not that of its content, and a request
//! with more elements and tags in total than its API has use for.

/// Tagged fields in a request header. No client sends any.
const HEADER_TAGS_MAX: usize = 100;

/// What a field is made of.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A number, or an id, of so many bytes.
    Fixed(usize),
    /// A string or null.
    Text,
    /// Bytes or null.
    Blob,
    /// An array or null of elements of this kind.
    Many(&'static Kind),
    /// Fields one behind the other.
    Struct(&'static Shape),
    /// A byte, and a structure where it is 1.
    Nullable(&'static Shape),
}

/// A field, and the versions that have it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The first version that has it.
    pub since: i16,
    /// The last version that has it.
    pub until: i16,
    /// What it is made of.
    pub kind: Kind,
}

/// A tagged field that the codec looks into.
#[derive(Clone, Copy, Debug)]
pub struct Tag {
    /// Kafka's number of it.
    pub tag: u32,
    /// What it is made of.
    pub kind: Kind,
}

/// A structure of a request.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// In the order of the bytes.
    pub fields: &'static [Field],
    /// Those that the codec reads; others are passed over by their size.
    pub tags: &'static [Tag],
}

/// Kafka's INT8 and BOOLEAN.
pub const I8: Kind = Kind::Fixed(1);
/// Kafka's INT16.
pub const I16: Kind = Kind::Fixed(2);
/// Kafka's INT32.
pub const I32: Kind = Kind::Fixed(4);
/// Kafka's INT64.
pub const I64: Kind = Kind::Fixed(8);
/// Kafka's UUID.
pub const UUID: Kind = Kind::Fixed(16);
/// An array of strings.
pub const TEXTS: Kind = Kind::Many(&Kind::Text);
/// An array of INT32.
pub const I32S: Kind = Kind::Many(&I32);

/// A field of all versions.
pub const fn always(kind: Kind) -> Field {
    Field { since: 0, until: i16::MAX, kind }
}

/// A field of this version and all later ones.
pub const fn since(since: i16, kind: Kind) -> Field {
    Field { since, until: i16::MAX, kind }
}

/// A field of this version and all earlier ones.
pub const fn until(until: i16, kind: Kind) -> Field {
    Field { since: 0, until, kind }
}

/// A field of these versions, both ends included.
pub const fn between(since: i16, until: i16, kind: Kind) -> Field {
    Field { since, until, kind }
}

/// A structure whose tagged fields are of no interest.
pub const fn plain(fields: &'static [Field]) -> Shape {
    Shape { fields, tags: &[] }
}

/// How a request of one API is bounded.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// What a request of this API is made of.
    pub shape: &'static Shape,
    /// Elements of all arrays, and tagged fields, in one request.
    pub elements_max: usize,
}

impl Bounds {
    /// For what names partitions: enough for all that a node has, and then some.
    pub const fn of_partitions(shape: &'static Shape) -> Bounds {
        const ELEMENTS_MAX: usize = 50_000;
        const _: () = assert!(ELEMENTS_MAX >= 2 * crate::limits::PARTITIONS_MAX);
        Bounds { shape, elements_max: ELEMENTS_MAX }
    }

    /// For what names topics or groups, each of which costs the broker far more than the client.
    pub const fn of_topics(shape: &'static Shape) -> Bounds {
        Bounds { shape, elements_max: 20_000 }
    }

    /// For what has few elements.
    pub const fn of_resources(shape: &'static Shape) -> Bounds {
        Bounds { shape, elements_max: 2_000 }
    }
}

/// Why bytes are not a request of the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// So many more bytes must be there.
    #[error("it ends in the middle of a field, {0} bytes short")]
    Short(usize),
    /// An array announces so many elements, and so many bytes are left.
    #[error("an array of {0} elements cannot be in the {1} bytes that are left")]
    ArrayTooLong(u64, usize),
    /// A length below -1, or -1 where nothing may be null.
    #[error("a length of {0}")]
    NegativeLength(i64),
    /// A variable-length number that does not end within its type.
    #[error("a number of more than five bytes")]
    LongNumber,
    /// A tagged field of one size announces another.
    #[error("a tagged field says it has {0} bytes and has {1}")]
    TagSize(usize, usize),
    /// There are more elements and tags than this.
    #[error("more than {0} elements")]
    TooManyElements(usize),
}

/// Walks `bytes` and returns how many of them the shape covers.
pub fn walk(bounds: Bounds, version: i16, flexible: bool, bytes: &[u8]) -> Result<usize, ShapeError> {
    let Bounds { shape, elements_max } = bounds;
    let mut walker = Walker { bytes, at: 0, elements: 0, elements_max, version, flexible };
    walker.shape(shape)?;
    Ok(walker.at)
}

/// Walks the tagged fields at the end of a flexible request header.
pub fn walk_tags(bytes: &[u8]) -> Result<usize, ShapeError> {
    let elements_max = HEADER_TAGS_MAX;
    let mut walker = Walker { bytes, at: 0, elements: 0, elements_max, version: 0, flexible: true };
    walker.tags(&[])?;
    Ok(walker.at)
}

struct Walker<'a> {
    bytes: &'a [u8],
    at: usize,
    elements: usize,
    elements_max: usize,
    version: i16,
    flexible: bool,
}

impl Walker<'_> {
    fn shape(&mut self, shape: &Shape) -> Result<(), ShapeError> {
        for field in shape.fields {
            if (field.since..=field.until).contains(&self.version) {
                self.kind(&field.kind)?;
            }
        }
        if self.flexible { self.tags(shape.tags) } else { Ok(()) }
    }

    fn kind(&mut self, kind: &Kind) -> Result<(), ShapeError> {
        match kind {
            Kind::Fixed(size) => self.skip(*size),
            Kind::Text => {
                let len = if self.flexible { self.compact_len()? } else { self.short_len()? };
                self.skip(len.unwrap_or(0))
            }
            Kind::Blob => {
                let len = if self.flexible { self.compact_len()? } else { self.long_len()? };
                self.skip(len.unwrap_or(0))
            }
            Kind::Many(element) => {
                let count = if self.flexible { self.compact_len()? } else { self.long_len()? };
                let count = count.unwrap_or(0);
                let left = self.bytes.len() - self.at;
                if count > left {
                    return Err(ShapeError::ArrayTooLong(count as u64, left));
                }
                self.count(count)?;
                (0..count).try_for_each(|_| self.kind(element))
            }
            Kind::Struct(shape) => self.shape(shape),
            Kind::Nullable(shape) => match self.take::<1>()? {
                [1] => self.shape(shape),
                _ => Ok(()),
            },
        }
    }

    fn tags(&mut self, known: &[Tag]) -> Result<(), ShapeError> {
        let count = self.unsigned()? as usize;
        self.count(count)?;
        for _ in 0..count {
            let tag = self.unsigned()?;
            let size = self.unsigned()? as usize;
            let start = self.at;
            match known.iter().find(|known| known.tag == tag) {
                Some(known) => self.kind(&known.kind)?,
                None => self.skip(size)?,
            }
            if self.at - start != size {
                return Err(ShapeError::TagSize(size, self.at - start));
            }
        }
        Ok(())
    }

    fn count(&mut self, elements: usize) -> Result<(), ShapeError> {
        self.elements = self.elements.saturating_add(elements);
        match self.elements > self.elements_max {
            true => Err(ShapeError::TooManyElements(self.elements_max)),
            false => Ok(()),
        }
    }

    fn skip(&mut self, size: usize) -> Result<(), ShapeError> {
        let left = self.bytes.len() - self.at;
        if size > left {
            return Err(ShapeError::Short(size - left));
        }
        self.at += size;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ShapeError> {
        let start = self.at;
        self.skip(N)?;
        let mut taken = [0; N];
        taken.copy_from_slice(&self.bytes[start..start + N]);
        Ok(taken)
    }

    fn short_len(&mut self) -> Result<Option<usize>, ShapeError> {
        nullable(i64::from(i16::from_be_bytes(self.take()?)))
    }

    fn long_len(&mut self) -> Result<Option<usize>, ShapeError> {
        nullable(i64::from(i32::from_be_bytes(self.take()?)))
    }

    fn compact_len(&mut self) -> Result<Option<usize>, ShapeError> {
        Ok(self.unsigned()?.checked_sub(1).map(|len| len as usize))
    }

    fn unsigned(&mut self) -> Result<u32, ShapeError> {
        let mut value = 0u32;
        for i in 0..5 {
            let [byte] = self.take()?;
            value |= u32::from(byte & 0x7f) << (i * 7);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ShapeError::LongNumber)
    }
}

fn nullable(len: i64) -> Result<Option<usize>, ShapeError> {
    match len {
        -1 => Ok(None),
        len => usize::try_from(len).map(Some).map_err(|_| ShapeError::NegativeLength(len)),
    }
}
