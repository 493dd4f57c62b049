//! The positions of a stream's channels as one text, which goes out as the `id` of events and comes back as `Last-Event-ID`.
//!
//! base64url without padding (RFC 4648 section 5) of
//!
//! | bytes | what |
//! |---|---|
//! | 1 | the version, 1 |
//! | 1 to 10 | the first channel's epoch, as a varint |
//! | for each channel 6 | the first bytes of the SHA-256 of its name |
//! | 1 to 10 | its epoch less the first channel's, in zigzag, as a varint |
//! | 1 to 8 | its offset, as a varint |
//!
//! A varint is a number in groups of seven bits, the lowest first, each but the last with its highest bit set (Protocol Buffers,
//! "Encoding"; zigzag is described there too). Clients need to know none of this.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use carillon_core::channel::Channel;
use carillon_core::limits::STREAM_CHANNELS;
use carillon_core::position::{Epoch, Position};
use sha2::{Digest, Sha256};

use crate::position::OFFSET_MAX;

/// The version that is written here.
const VERSION: u8 = 1;

/// Bytes of a channel's key. Two of 50 channels share one with a chance of 1 in 230 thousand million, and [`LOST`] is for those.
const KEY_BYTES: usize = 6;

/// Bytes of the longest varint of 64 bits.
const VARINT_BYTES: usize = 10;

/// Bytes of the longest vector before base64. [`OFFSET_MAX`] has 53 bits, which take 8.
const LONGEST: usize = 1 + VARINT_BYTES + STREAM_CHANNELS * (KEY_BYTES + VARINT_BYTES + 8);

/// Characters of the longest vector.
pub const VECTOR_CHARACTERS: usize = (LONGEST * 4).div_ceil(3);

/// A position that no log has. Whoever resumes from it is told that something is missing (S4), which is what a channel gets whose
/// position a vector could not hold.
pub const LOST: Position = Position::new(Epoch(0), 0);

/// The positions that an `id` holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PositionVector(Vec<(Key, Position)>);

/// The channels of an open stream, and where it is in each.
#[derive(Clone, Debug)]
pub struct Positions(Vec<Place>);

/// Why a text is no vector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VectorError {
    /// Too long to be one.
    #[error("it has {0} characters, and an id has at most {VECTOR_CHARACTERS}")]
    TooLong(usize),
    /// Not base64url.
    #[error("it is not base64url without padding")]
    Base64(#[source] base64::DecodeError),
    /// Of a version that this code does not know.
    #[error("it is of version {0}, and this server knows {VERSION}")]
    Version(u8),
    /// It ends within a position.
    #[error("it is cut off")]
    Cut,
    /// A number of more than 64 bits, or an offset beyond the largest.
    #[error("it holds a number that is too large")]
    Number,
    /// Too many positions.
    #[error("it holds more than {STREAM_CHANNELS} positions")]
    TooMany,
    /// Two positions for one channel.
    #[error("it holds two positions for one channel")]
    Twice,
}

type Key = [u8; KEY_BYTES];

#[derive(Clone, Debug)]
struct Place {
    key: Key,
    position: Option<Position>,
    /// Another channel has the same key.
    shared: bool,
}

impl Positions {
    /// The positions of a stream of these channels, which are not known yet. Of more than [`STREAM_CHANNELS`] the first are kept.
    pub fn of<'a>(channels: impl IntoIterator<Item = &'a Channel>) -> Self {
        let keys: Vec<Key> = channels.into_iter().map(key).take(STREAM_CHANNELS).collect();
        let shared = |key: &Key| keys.iter().filter(|other| *other == key).count() > 1;
        Self(keys.iter().map(|key| Place { key: *key, position: None, shared: shared(key) }).collect())
    }

    /// Writes down where the stream is in a channel; one that is none of the stream's is passed over.
    pub fn set(&mut self, channel: &Channel, position: Position) {
        let key = key(channel);
        for place in self.0.iter_mut().filter(|place| place.key == key) {
            place.position = Some(position);
        }
    }

    /// The positions that are known. Of two channels with one key neither's is: both resume from [`LOST`].
    #[must_use]
    pub fn vector(&self) -> PositionVector {
        let mut vector = PositionVector::default();
        for Place { key, position, shared } in &self.0 {
            let Some(position) = position else { continue };
            if vector.at(*key).is_none() {
                vector.0.push((*key, if *shared { LOST } else { *position }));
            }
        }
        vector
    }
}

impl PositionVector {
    /// Where the stream was in a channel; none where the vector does not say.
    #[must_use]
    pub fn position_of(&self, channel: &Channel) -> Option<Position> {
        self.at(key(channel))
    }

    /// The vector as text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(LONGEST);
        bytes.push(VERSION);
        let first = self.0.first().map_or(0, |(_, position)| position.epoch.0);
        put_varint(&mut bytes, first);
        for (key, Position { epoch, offset }) in &self.0 {
            bytes.extend(key);
            put_varint(&mut bytes, zigzag(epoch.0.wrapping_sub(first).cast_signed()));
            put_varint(&mut bytes, *offset);
        }
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads the text again.
    ///
    /// # Errors
    /// When it is none that was written here.
    pub fn decode(text: &str) -> Result<Self, VectorError> {
        if text.len() > VECTOR_CHARACTERS {
            return Err(VectorError::TooLong(text.len()));
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(VectorError::Base64)?;
        let (version, mut rest) = bytes.split_first().ok_or(VectorError::Cut)?;
        if *version != VERSION {
            return Err(VectorError::Version(*version));
        }
        let first = take_varint(&mut rest)?;
        let mut vector = Self::default();
        while !rest.is_empty() {
            let (key, after) = rest.split_first_chunk::<KEY_BYTES>().ok_or(VectorError::Cut)?;
            rest = after;
            let epoch = first.wrapping_add(unzigzag(take_varint(&mut rest)?).cast_unsigned());
            let offset = take_varint(&mut rest)?;
            if offset > OFFSET_MAX {
                return Err(VectorError::Number);
            }
            if vector.at(*key).is_some() {
                return Err(VectorError::Twice);
            }
            if vector.0.len() == STREAM_CHANNELS {
                return Err(VectorError::TooMany);
            }
            vector.0.push((*key, Position::new(Epoch(epoch), offset)));
        }
        Ok(vector)
    }

    fn at(&self, key: Key) -> Option<Position> {
        self.0.iter().find(|(known, _)| *known == key).map(|(_, position)| *position)
    }
}

fn key(channel: &Channel) -> Key {
    let digest = Sha256::digest(channel.as_str());
    std::array::from_fn(|index| digest[index])
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, VectorError> {
    let mut number = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(VectorError::Cut)?;
        *bytes = rest;
        let group = u64::from(byte & 0x7f);
        if group << shift >> shift != group {
            return Err(VectorError::Number);
        }
        number |= group << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(VectorError::Number)
}

/// Small numbers of either sign become small numbers.
const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

const fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn channel(name: &str) -> Channel {
        Channel::parse(name).expect("a channel")
    }

    fn position(epoch: u64, offset: u64) -> Position {
        Position::new(Epoch(epoch), offset)
    }

    /// What a stream of these channels writes.
    fn written(places: &[(Channel, Position)]) -> PositionVector {
        let mut positions = Positions::of(places.iter().map(|(channel, _)| channel));
        for (channel, position) in places {
            positions.set(channel, *position);
        }
        positions.vector()
    }

    #[test]
    fn a_vector_is_compact() {
        let one = written(&[(channel("orders/42"), position(1_795_426_212_000, 41))]);
        assert_eq!(one.encode().len(), 20);
        let epochs = (0..50).map(|number| (channel(&format!("orders/{number}")), position(1_795_426_212_000 + number, 1_000)));
        assert!(written(&epochs.collect::<Vec<_>>()).encode().len() < 700);
    }

    #[test]
    fn what_is_written_stays_readable() {
        let vector = written(&[
            (channel("orders/42"), position(1_795_426_212_000, 41)),
            (channel("orders/43"), position(1_795_426_211_999, 300)),
        ]);
        // Clients keep these texts: one that was once given out has to be understood for as long as the version is known.
        let text = "AaCx972gNMTdFl8GwwAp7ZVZGoLAAawC";
        assert_eq!(PositionVector::decode(text), Ok(vector.clone()));
        assert_eq!(vector.encode(), text);
    }

    #[test]
    fn only_what_is_known_is_in_it() {
        let (a, b) = (channel("a"), channel("b"));
        let mut positions = Positions::of([&a, &b]);
        assert_eq!(positions.vector(), PositionVector::default());
        positions.set(&a, position(7, 1));
        positions.set(&a, position(7, 2));
        positions.set(&channel("c"), position(7, 3));
        let vector = positions.vector();
        assert_eq!((vector.position_of(&a), vector.position_of(&b)), (Some(position(7, 2)), None));
        assert_eq!(vector.position_of(&channel("c")), None);
    }

    #[test]
    fn two_channels_with_one_key_both_resume_with_a_gap() {
        // Found among forty million names.
        let (first, second) = (channel("c/8622291"), channel("c/8921046"));
        assert_eq!(key(&first), key(&second));
        let other = channel("orders/42");
        let vector =
            written(&[(first.clone(), position(7, 1)), (other.clone(), position(7, 2)), (second.clone(), position(7, 3))]);
        let vector = PositionVector::decode(&vector.encode()).expect("it reads back");
        assert_eq!((vector.position_of(&first), vector.position_of(&second)), (Some(LOST), Some(LOST)));
        assert_eq!(vector.position_of(&other), Some(position(7, 2)));
    }

    #[test]
    fn what_is_no_vector_says_why() {
        let of = |bytes: &[u8]| PositionVector::decode(&BASE64_URL_SAFE_NO_PAD.encode(bytes)).expect_err("no vector");
        assert_eq!(PositionVector::decode("").expect_err("empty"), VectorError::Cut);
        assert!(matches!(PositionVector::decode("AQ=="), Err(VectorError::Base64(_))));
        assert!(matches!(PositionVector::decode("1795426212000-41"), Err(VectorError::Base64(_) | VectorError::Version(_))));
        assert_eq!(of(&[2, 0]), VectorError::Version(2));
        assert_eq!(of(&[1]), VectorError::Cut);
        assert_eq!(of(&[1, 0x80]), VectorError::Cut);
        assert_eq!(of(&[1, 0, 1, 2, 3]), VectorError::Cut);
        assert_eq!(of(&[1, 0, 1, 2, 3, 4, 5, 6, 0]), VectorError::Cut);
        assert_eq!(of(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), VectorError::Number);
        assert_eq!(of(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x80, 0x00]), VectorError::Number);
        let mut large = vec![1, 0, 1, 2, 3, 4, 5, 6, 0];
        put_varint(&mut large, OFFSET_MAX + 1);
        assert_eq!(of(&large), VectorError::Number);
        assert_eq!(of(&[1, 0, 1, 2, 3, 4, 5, 6, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0]), VectorError::Twice);
        let many: Vec<u8> = [1, 0].into_iter().chain((0..51).flat_map(|number| [number, 0, 0, 0, 0, 0, 0, 0])).collect();
        assert_eq!(of(&many), VectorError::TooMany);
        let long = "A".repeat(VECTOR_CHARACTERS + 1);
        assert_eq!(PositionVector::decode(&long).expect_err("long"), VectorError::TooLong(long.len()));
    }

    proptest! {
        #[test]
        fn a_vector_reads_back_as_it_was_written(
            places in proptest::collection::btree_map("[a-z0-9]{1,12}(/[a-z0-9]{1,12}){0,2}", (any::<u64>(), 0..=OFFSET_MAX), 0..=50),
        ) {
            let places: Vec<_> = places.into_iter().map(|(name, (epoch, offset))| (channel(&name), position(epoch, offset))).collect();
            let text = written(&places).encode();
            prop_assert!(text.len() <= VECTOR_CHARACTERS);
            let vector = PositionVector::decode(&text).expect("it reads back");
            for (channel, position) in &places {
                prop_assert_eq!(vector.position_of(channel), Some(*position));
            }
            prop_assert_eq!(vector.encode(), text);
        }

        #[test]
        fn no_text_and_no_bytes_make_the_decoder_panic(text in ".*", bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = PositionVector::decode(&text);
            let _ = PositionVector::decode(&BASE64_URL_SAFE_NO_PAD.encode(&bytes));
            let versioned: Vec<u8> = std::iter::once(VERSION).chain(bytes).collect();
            if let Ok(vector) = PositionVector::decode(&BASE64_URL_SAFE_NO_PAD.encode(versioned)) {
                prop_assert_eq!(PositionVector::decode(&vector.encode()), Ok(vector));
            }
        }
    }
}
