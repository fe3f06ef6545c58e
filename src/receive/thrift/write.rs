//! Thrift written, for tests only: values as trees, in either encoding.

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Bool(bool),
    I16(i16),
    I32(i32),
    I64(i64),
    Double(f64),
    Binary(Vec<u8>),
    Struct(Vec<(i16, Node)>),
    /// Never empty, so that its elements have a type.
    List(Vec<Node>),
}

impl Node {
    pub fn text(text: &str) -> Self {
        Self::Binary(text.as_bytes().to_vec())
    }

    pub fn binary(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_binary(&mut out);
        out
    }

    pub fn compact(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_compact(&mut out);
        out
    }

    /// As the arguments of a call, as an agent's client sends it.
    pub fn binary_call(&self, method: &str) -> Vec<u8> {
        let mut out = 0x8001_0004u32.to_be_bytes().to_vec();
        Self::text(method).write_binary(&mut out);
        out.extend_from_slice(&1i32.to_be_bytes());
        self.write_binary(&mut out);
        out
    }

    pub fn compact_call(&self, method: &str) -> Vec<u8> {
        let mut out = vec![0x82, 1 | 4 << 5];
        put_varint(&mut out, 1);
        Self::text(method).write_compact(&mut out);
        self.write_compact(&mut out);
        out
    }

    fn binary_type(&self) -> u8 {
        match self {
            Self::Bool(_) => 2,
            Self::Double(_) => 4,
            Self::I16(_) => 6,
            Self::I32(_) => 8,
            Self::I64(_) => 10,
            Self::Binary(_) => 11,
            Self::Struct(_) => 12,
            Self::List(_) => 15,
        }
    }

    fn compact_type(&self) -> u8 {
        match self {
            Self::Bool(true) => 1,
            Self::Bool(false) => 2,
            Self::I16(_) => 4,
            Self::I32(_) => 5,
            Self::I64(_) => 6,
            Self::Double(_) => 7,
            Self::Binary(_) => 8,
            Self::List(_) => 9,
            Self::Struct(_) => 12,
        }
    }

    fn write_binary(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(value) => out.push(u8::from(*value)),
            Self::I16(value) => out.extend_from_slice(&value.to_be_bytes()),
            Self::I32(value) => out.extend_from_slice(&value.to_be_bytes()),
            Self::I64(value) => out.extend_from_slice(&value.to_be_bytes()),
            Self::Double(value) => out.extend_from_slice(&value.to_be_bytes()),
            Self::Binary(bytes) => {
                out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
                out.extend_from_slice(bytes);
            }
            Self::Struct(fields) => {
                for (id, value) in fields {
                    out.push(value.binary_type());
                    out.extend_from_slice(&id.to_be_bytes());
                    value.write_binary(out);
                }
                out.push(0);
            }
            Self::List(elements) => {
                out.push(elements[0].binary_type());
                out.extend_from_slice(&(elements.len() as i32).to_be_bytes());
                elements.iter().for_each(|element| element.write_binary(out));
            }
        }
    }

    fn write_compact(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(value) => out.push(if *value { 1 } else { 2 }),
            Self::I16(value) => put_zigzag(out, (*value).into()),
            Self::I32(value) => put_zigzag(out, (*value).into()),
            Self::I64(value) => put_zigzag(out, *value),
            Self::Double(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::Binary(bytes) => {
                put_varint(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            Self::Struct(fields) => {
                let mut last = 0;
                for (id, value) in fields {
                    match id.wrapping_sub(last) {
                        delta @ 1..=15 => out.push((delta as u8) << 4 | value.compact_type()),
                        _ => {
                            out.push(value.compact_type());
                            put_zigzag(out, (*id).into());
                        }
                    }
                    last = *id;
                    // A boolean is its field's type.
                    if !matches!(value, Self::Bool(_)) {
                        value.write_compact(out);
                    }
                }
                out.push(0);
            }
            Self::List(elements) => {
                let kind = elements[0].compact_type();
                if elements.len() < 15 {
                    out.push((elements.len() as u8) << 4 | kind);
                } else {
                    out.push(0xf0 | kind);
                    put_varint(out, elements.len() as u64);
                }
                elements.iter().for_each(|element| element.write_compact(out));
            }
        }
    }
}

fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, (value << 1 ^ value >> 63) as u64);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
