//! Thrift's two encodings, as far as tracing formats use them: a reader over bytes that are there.
//!
//! A declared length is compared with the bytes that remain before anything is done with it, so a message can make
//! nobody allocate more than it sends; nesting is bounded.

use crate::otlp::draft::{PartCount, TooManyParts};
use thiserror::Error;

/// Structures that nobody here asks for may nest this deep.
const DEPTH_MAX: u32 = 32;
/// Protocol version of a binary message header, in its upper half.
const BINARY_VERSION: u32 = 0x8001;
const COMPACT_PROTOCOL_ID: u8 = 0x82;
const COMPACT_VERSION: u8 = 1;

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Binary,
    Compact,
}

/// A type on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Byte,
    I16,
    I32,
    I64,
    Double,
    /// Text or bytes.
    Binary,
    Struct,
    Map,
    Set,
    List,
    Uuid,
}

/// Where and why bytes are no Thrift.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{problem} at byte {offset}")]
pub struct ThriftError {
    pub offset: usize,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    #[error("the message ends too early")]
    End,
    #[error("a length of {0} goes beyond the end of the message")]
    Length(i64),
    #[error("a number takes too many bytes")]
    Varint,
    #[error("{0} is no type of this encoding")]
    UnknownType(u8),
    #[error("{what} has type {found:?}, expected {expected:?}")]
    Type { what: &'static str, found: Kind, expected: Kind },
    #[error("structures are nested more than {DEPTH_MAX} deep")]
    TooDeep,
    #[error(transparent)]
    TooMany(TooManyParts),
    #[error("protocol version {0:#x} is not supported")]
    Version(u32),
}

/// The header of a message: a call of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    pub method: &'a [u8],
}

/// Reads one message from its beginning to its end.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    encoding: Encoding,
    bytes: &'a [u8],
    position: usize,
    /// A boolean whose value stood in its field's header (compact encoding).
    pending_bool: Option<bool>,
    /// Elements of lists that are kept, since [`Reader::begin`].
    parts: PartCount,
}

/// A field of a structure on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    pub id: i16,
    pub kind: Kind,
}

impl<'a> Reader<'a> {
    pub fn new(encoding: Encoding, bytes: &'a [u8]) -> Self {
        Self { encoding, bytes, position: 0, pending_bool: None, parts: PartCount::default() }
    }

    fn failed<T>(&self, problem: Problem) -> Result<T, ThriftError> {
        Err(ThriftError { offset: self.position, problem })
    }

    /// The header of a call; what follows is the structure of its arguments.
    pub fn call(&mut self) -> Result<Call<'a>, ThriftError> {
        match self.encoding {
            Encoding::Binary => {
                let first = self.i32()?;
                // Old clients leave the version out; then the first number is the length of the name.
                let method = if first >= 0 {
                    let method = self.take(i64::from(first))?;
                    self.take(1)?;
                    method
                } else {
                    let version = (first as u32) >> 16;
                    if version != BINARY_VERSION {
                        return self.failed(Problem::Version(version));
                    }
                    self.binary()?
                };
                self.i32()?;
                Ok(Call { method })
            }
            Encoding::Compact => {
                let protocol = self.byte()?;
                let version = self.byte()?;
                if protocol != COMPACT_PROTOCOL_ID || version & 0x1f != COMPACT_VERSION {
                    return self.failed(Problem::Version(u32::from(protocol) << 8 | u32::from(version)));
                }
                self.varint()?;
                Ok(Call { method: self.binary()? })
            }
        }
    }

    /// Calls `read` for every field of a structure; it returns whether it took the field, otherwise it is skipped.
    pub fn structure(
        &mut self,
        read: impl FnMut(&mut Self, Field) -> Result<bool, ThriftError>,
    ) -> Result<(), ThriftError> {
        self.structure_or(read)
    }

    /// As [`Reader::structure`], where more than Thrift can be wrong.
    pub fn structure_or<E: From<ThriftError>>(
        &mut self,
        mut read: impl FnMut(&mut Self, Field) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut last = 0;
        while let Some(field) = self.field(last)? {
            last = field.id;
            if !read(self, field)? {
                self.skip(field.kind, 0)?;
            }
            self.pending_bool = None;
        }
        Ok(())
    }

    /// The header of a list or set: how many elements of `expected` follow.
    pub fn list(&mut self, what: &'static str, expected: Kind) -> Result<usize, ThriftError> {
        let (found, len) = self.list_header()?;
        if found != expected && len > 0 {
            return self.failed(Problem::Type { what, found, expected });
        }
        Ok(len)
    }

    /// As [`Reader::list`], of parts of a span or process, which are held until it is read.
    pub fn parts(&mut self, what: &'static str, expected: Kind) -> Result<usize, ThriftError> {
        let len = self.list(what, expected)?;
        match self.parts.add(len) {
            Ok(()) => Ok(len),
            Err(problem) => self.failed(Problem::TooMany(problem)),
        }
    }

    /// A span or process begins.
    pub fn begin(&mut self) {
        self.parts = PartCount::default();
    }

    pub fn bool(&mut self) -> Result<bool, ThriftError> {
        match self.pending_bool.take() {
            Some(value) => Ok(value),
            None => Ok(self.byte()? == 1),
        }
    }

    pub fn i16(&mut self) -> Result<i16, ThriftError> {
        match self.encoding {
            Encoding::Binary => Ok(i16::from_be_bytes(self.fixed()?)),
            Encoding::Compact => Ok(self.zigzag()? as i16),
        }
    }

    pub fn i32(&mut self) -> Result<i32, ThriftError> {
        match self.encoding {
            Encoding::Binary => Ok(i32::from_be_bytes(self.fixed()?)),
            Encoding::Compact => Ok(self.zigzag()? as i32),
        }
    }

    pub fn i64(&mut self) -> Result<i64, ThriftError> {
        match self.encoding {
            Encoding::Binary => Ok(i64::from_be_bytes(self.fixed()?)),
            Encoding::Compact => self.zigzag(),
        }
    }

    pub fn double(&mut self) -> Result<f64, ThriftError> {
        Ok(f64::from_bits(match self.encoding {
            Encoding::Binary => u64::from_be_bytes(self.fixed()?),
            Encoding::Compact => u64::from_le_bytes(self.fixed()?),
        }))
    }

    pub fn binary(&mut self) -> Result<&'a [u8], ThriftError> {
        let len = match self.encoding {
            Encoding::Binary => i64::from(self.i32()?),
            Encoding::Compact => i64::try_from(self.varint()?).unwrap_or(i64::MAX),
        };
        self.take(len)
    }

    /// Refuses a field that has another type than the format gives it: then it is another format.
    pub fn expect(&self, what: &'static str, field: Field, expected: Kind) -> Result<(), ThriftError> {
        if field.kind == expected {
            return Ok(());
        }
        self.failed(Problem::Type { what, found: field.kind, expected })
    }

    fn field(&mut self, last: i16) -> Result<Option<Field>, ThriftError> {
        let head = self.byte()?;
        if head == 0 {
            return Ok(None);
        }
        match self.encoding {
            Encoding::Binary => {
                let kind = self.kind(head)?;
                Ok(Some(Field { id: self.i16()?, kind }))
            }
            Encoding::Compact => {
                let (delta, code) = (i16::from(head >> 4), head & 15);
                let kind = self.kind(code)?;
                let id = if delta == 0 { self.zigzag()? as i16 } else { last.wrapping_add(delta) };
                if kind == Kind::Bool {
                    self.pending_bool = Some(code == 1);
                }
                Ok(Some(Field { id, kind }))
            }
        }
    }

    fn kind(&self, code: u8) -> Result<Kind, ThriftError> {
        let kind = match (self.encoding, code) {
            (Encoding::Binary, 2) | (Encoding::Compact, 1 | 2) => Kind::Bool,
            (Encoding::Binary | Encoding::Compact, 3) => Kind::Byte,
            (Encoding::Binary, 4) | (Encoding::Compact, 7) => Kind::Double,
            (Encoding::Binary, 6) | (Encoding::Compact, 4) => Kind::I16,
            (Encoding::Binary, 8) | (Encoding::Compact, 5) => Kind::I32,
            (Encoding::Binary, 10) | (Encoding::Compact, 6) => Kind::I64,
            (Encoding::Binary, 11) | (Encoding::Compact, 8) => Kind::Binary,
            (Encoding::Binary | Encoding::Compact, 12) => Kind::Struct,
            (Encoding::Binary, 13) | (Encoding::Compact, 11) => Kind::Map,
            (Encoding::Binary, 14) | (Encoding::Compact, 10) => Kind::Set,
            (Encoding::Binary, 15) | (Encoding::Compact, 9) => Kind::List,
            (Encoding::Binary, 16) | (Encoding::Compact, 13) => Kind::Uuid,
            _ => return self.failed(Problem::UnknownType(code)),
        };
        Ok(kind)
    }

    fn list_header(&mut self) -> Result<(Kind, usize), ThriftError> {
        let (code, len) = match self.encoding {
            Encoding::Binary => (self.byte()?, i64::from(self.i32()?)),
            Encoding::Compact => {
                let head = self.byte()?;
                let len = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                (head & 15, i64::try_from(len).unwrap_or(i64::MAX))
            }
        };
        // Every element takes a byte at least.
        let len = self.within(len)?;
        // Some writers give an empty list no type.
        if len == 0 {
            return Ok((Kind::Byte, 0));
        }
        Ok((self.kind(code)?, len))
    }

    fn skip(&mut self, kind: Kind, depth: u32) -> Result<(), ThriftError> {
        if depth > DEPTH_MAX {
            return self.failed(Problem::TooDeep);
        }
        match kind {
            Kind::Bool => self.bool().map(drop),
            Kind::Byte => self.byte().map(drop),
            Kind::I16 => self.i16().map(drop),
            Kind::I32 => self.i32().map(drop),
            Kind::I64 => self.i64().map(drop),
            Kind::Double => self.take(8).map(drop),
            Kind::Uuid => self.take(16).map(drop),
            Kind::Binary => self.binary().map(drop),
            Kind::Struct => {
                let mut last = 0;
                while let Some(field) = self.field(last)? {
                    last = field.id;
                    self.skip(field.kind, depth + 1)?;
                    self.pending_bool = None;
                }
                Ok(())
            }
            Kind::List | Kind::Set => {
                let (kind, len) = self.list_header()?;
                (0..len).try_for_each(|_| self.skip(kind, depth + 1))
            }
            Kind::Map => self.skip_map(depth),
        }
    }

    fn skip_map(&mut self, depth: u32) -> Result<(), ThriftError> {
        let (key, value, len) = match self.encoding {
            Encoding::Binary => {
                let (key, value) = (self.byte()?, self.byte()?);
                (key, value, i64::from(self.i32()?))
            }
            Encoding::Compact => match i64::try_from(self.varint()?).unwrap_or(i64::MAX) {
                0 => return Ok(()),
                len => {
                    let kinds = self.byte()?;
                    (kinds >> 4, kinds & 15, len)
                }
            },
        };
        let len = self.within(len)?;
        if len == 0 {
            return Ok(());
        }
        let (key, value) = (self.kind(key)?, self.kind(value)?);
        (0..len).try_for_each(|_| {
            self.skip(key, depth + 1)?;
            self.skip(value, depth + 1)
        })
    }

    fn byte(&mut self) -> Result<u8, ThriftError> {
        Ok(u8::from_be_bytes(self.fixed()?))
    }

    fn zigzag(&mut self) -> Result<i64, ThriftError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn varint(&mut self) -> Result<u64, ThriftError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        self.failed(Problem::Varint)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], ThriftError> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        match rest.first_chunk() {
            Some(bytes) => {
                self.position += N;
                Ok(*bytes)
            }
            None => self.failed(Problem::End),
        }
    }

    /// A length that the bytes which remain can hold.
    fn within(&self, len: i64) -> Result<usize, ThriftError> {
        let rest = self.bytes.len().saturating_sub(self.position);
        match usize::try_from(len) {
            Ok(len) if len <= rest => Ok(len),
            _ => self.failed(Problem::Length(len)),
        }
    }

    fn take(&mut self, len: i64) -> Result<&'a [u8], ThriftError> {
        let len = self.within(len)?;
        let taken = self.bytes.get(self.position..self.position + len).unwrap_or_default();
        self.position += len;
        Ok(taken)
    }
}

#[cfg(test)]
pub mod write;

#[cfg(test)]
mod tests {
    use super::write::Node;
    use super::*;
    use proptest::prelude::*;

    fn node() -> impl Strategy<Value = Node> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Node::Bool),
            any::<i16>().prop_map(Node::I16),
            any::<i32>().prop_map(Node::I32),
            any::<i64>().prop_map(Node::I64),
            any::<Vec<u8>>().prop_map(Node::Binary),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec((any::<i16>(), inner.clone()), 0..6).prop_map(Node::Struct),
                // The elements of a list have one type.
                (inner, 1..20usize).prop_map(|(element, len)| Node::List(vec![element; len])),
            ]
        })
    }

    /// Reads what [`Node`] wrote, by the types that are on the wire.
    fn read(reader: &mut Reader<'_>, kind: Kind) -> Result<Node, ThriftError> {
        Ok(match kind {
            Kind::Bool => Node::Bool(reader.bool()?),
            Kind::I16 => Node::I16(reader.i16()?),
            Kind::I32 => Node::I32(reader.i32()?),
            Kind::I64 => Node::I64(reader.i64()?),
            Kind::Double => Node::Double(reader.double()?),
            Kind::Binary => Node::Binary(reader.binary()?.to_vec()),
            Kind::Struct => {
                let mut fields = Vec::new();
                reader.structure(|reader, field| {
                    fields.push((field.id, read(reader, field.kind)?));
                    Ok(true)
                })?;
                Node::Struct(fields)
            }
            Kind::List => {
                let (kind, len) = reader.list_header()?;
                Node::List((0..len).map(|_| read(reader, kind)).collect::<Result<_, _>>()?)
            }
            other => panic!("{other:?} is never written"),
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back_or_skipped_to_its_end(fields in proptest::collection::vec((any::<i16>(), node()), 0..6)) {
            let node = Node::Struct(fields);
            for (encoding, bytes) in [(Encoding::Binary, node.binary()), (Encoding::Compact, node.compact())] {
                let mut reader = Reader::new(encoding, &bytes);
                prop_assert_eq!(&read(&mut reader, Kind::Struct).unwrap(), &node);
                prop_assert_eq!(reader.position, bytes.len());
                let mut reader = Reader::new(encoding, &bytes);
                reader.skip(Kind::Struct, 0).unwrap();
                prop_assert_eq!(reader.position, bytes.len());
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic_and_end(bytes: Vec<u8>) {
            for encoding in [Encoding::Binary, Encoding::Compact] {
                let _ = Reader::new(encoding, &bytes).structure(|_, _| Ok(false));
                let _ = Reader::new(encoding, &bytes).call();
            }
        }
    }

    #[test]
    fn a_length_beyond_the_end_and_nesting_without_end_are_refused() {
        let list = [15, 0, 1, 12, 0x7f, 0xff, 0xff, 0xff];
        let error = Reader::new(Encoding::Binary, &list).structure(|_, _| Ok(false)).unwrap_err();
        assert_eq!(error.problem, Problem::Length(0x7fff_ffff));
        let nested = [12, 0, 1].repeat(1000);
        let error = Reader::new(Encoding::Binary, &nested).structure(|_, _| Ok(false)).unwrap_err();
        assert_eq!(error.problem, Problem::TooDeep);
        let endless = [0x19; 1000];
        let error = Reader::new(Encoding::Compact, &endless).structure(|_, _| Ok(false)).unwrap_err();
        assert_eq!(error.problem, Problem::TooDeep);
    }

    #[test]
    fn old_clients_leave_the_version_out() {
        let mut call = 9u32.to_be_bytes().to_vec();
        call.extend_from_slice(b"emitBatch\x04\0\0\0\x01");
        assert_eq!(Reader::new(Encoding::Binary, &call).call().unwrap().method, b"emitBatch");
    }
}
