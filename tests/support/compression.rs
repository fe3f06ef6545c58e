//! Bodies in every encoding that OTLP clients use.

use std::io::{Read, Write};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Identity,
    Gzip,
    Zstd,
    /// The zlib format, as HTTP and gRPC both mean it.
    Deflate,
    /// One block with its length in front, as Go's HTTP exporters used to send it.
    SnappyBlock,
    /// The framing format, as gRPC clients send it.
    SnappyFramed,
    Lz4,
}

impl Compression {
    pub const ALL: [Compression; 7] =
        [Self::Identity, Self::Gzip, Self::Zstd, Self::Deflate, Self::SnappyBlock, Self::SnappyFramed, Self::Lz4];

    /// The value of `content-encoding` or `grpc-encoding`; `None`: no header.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
            Self::Deflate => Some("deflate"),
            Self::SnappyBlock | Self::SnappyFramed => Some("snappy"),
            Self::Lz4 => Some("lz4"),
        }
    }

    pub fn apply(self, body: &[u8]) -> Vec<u8> {
        const LEVEL: flate2::Compression = flate2::Compression::new(6);
        match self {
            Self::Identity => body.to_vec(),
            Self::Gzip => {
                let mut out = flate2::write::GzEncoder::new(Vec::new(), LEVEL);
                out.write_all(body).and_then(|()| out.finish()).expect("memory takes every write")
            }
            Self::Zstd => zstd::bulk::compress(body, 1).expect("memory takes every write"),
            Self::Deflate => {
                let mut out = flate2::write::ZlibEncoder::new(Vec::new(), LEVEL);
                out.write_all(body).and_then(|()| out.finish()).expect("memory takes every write")
            }
            Self::SnappyBlock => snap::raw::Encoder::new().compress_vec(body).expect("memory takes every write"),
            Self::SnappyFramed => {
                let mut out = snap::write::FrameEncoder::new(Vec::new());
                out.write_all(body).expect("memory takes every write");
                out.into_inner().expect("memory takes every write")
            }
            Self::Lz4 => {
                let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
                out.write_all(body).expect("memory takes every write");
                out.finish().expect("memory takes every write")
            }
        }
    }
}

/// The other direction, for answers: `encoding` as in `grpc-encoding`.
pub fn decompress(encoding: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let result = match encoding {
        "gzip" => flate2::read::GzDecoder::new(body).read_to_end(&mut out),
        "deflate" => flate2::read::ZlibDecoder::new(body).read_to_end(&mut out),
        "snappy" => snap::read::FrameDecoder::new(body).read_to_end(&mut out),
        "zstd" => zstd::stream::copy_decode(body, &mut out).map(|()| out.len()),
        other => panic!("an answer in an encoding that nobody asked for: {other}"),
    };
    result.unwrap_or_else(|error| panic!("a broken {encoding} body: {error}"));
    out
}
