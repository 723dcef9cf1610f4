//! Values that can be written and read.

use bytes::Bytes;

use crate::{Arm, Arms, DecodeError, NotInVersion, Reader, Writer};

/// A value with a BARE form.
pub trait Codec: Sized {
    /// No value takes fewer bytes, in any protocol version.
    const MIN_SIZE: usize;

    /// Appends the value. On error an unfinished value stays behind in the buffer.
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), NotInVersion>;

    /// Takes a value off the frame.
    fn read(reader: &mut Reader) -> Result<Self, DecodeError>;
}

/// Numbers of fixed size, little-endian.
macro_rules! little_endian {
    ($($number:ty),+) => {$(
        impl Codec for $number {
            const MIN_SIZE: usize = size_of::<$number>();

            fn write(&self, writer: &mut Writer<'_>) -> Result<(), NotInVersion> {
                writer.raw(&self.to_le_bytes());
                Ok(())
            }

            fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
                Ok(<$number>::from_le_bytes(reader.array()?))
            }
        }
    )+};
}

little_endian!(u8, u16, u32, u64, i64);

impl Codec for bool {
    const MIN_SIZE: usize = 1;

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), NotInVersion> {
        writer.raw(&[u8::from(*self)]);
        Ok(())
    }

    /// Anything but zero is true, as the native peers have it.
    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        let [byte] = reader.array()?;
        Ok(byte != 0)
    }
}

impl Codec for String {
    const MIN_SIZE: usize = 1;

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), NotInVersion> {
        writer.data(self.as_bytes());
        Ok(())
    }

    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.string()
    }
}

/// `data`: length-prefixed. Read as a slice of the frame, without a copy.
impl Codec for Bytes {
    const MIN_SIZE: usize = 1;

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), NotInVersion> {
        writer.data(self);
        Ok(())
    }

    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.data()
    }
}

/// `data[N]`: no length on the wire.
impl<const N: usize> Codec for [u8; N] {
    const MIN_SIZE: usize = N;

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), NotInVersion> {
        writer.raw(self);
        Ok(())
    }

    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.array()
    }
}

impl<T: Codec> Codec for Option<T> {
    const MIN_SIZE: usize = 1;

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), NotInVersion> {
        self.is_some().write(writer)?;
        self.as_ref().map_or(Ok(()), |value| value.write(writer))
    }

    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.array()? {
            [0] => Ok(None),
            [1] => Ok(Some(T::read(reader)?)),
            [tag] => Err(DecodeError::TagOutOfRange { union: "optional", tag: tag.into() }),
        }
    }
}

const RESULT_ARMS: Arms<bool> =
    Arms { union: "Result", arms: &[Arm { name: "Ok", since: 0, key: true }, Arm { name: "Err", since: 0, key: false }] };

/// A union of two arms: 0 = `Ok`, 1 = `Err`.
impl<T: Codec, E: Codec> Codec for Result<T, E> {
    const MIN_SIZE: usize = 1;

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), NotInVersion> {
        match self {
            Ok(value) => {
                writer.arm(&RESULT_ARMS, 0)?;
                value.write(writer)
            }
            Err(error) => {
                writer.arm(&RESULT_ARMS, 1)?;
                error.write(writer)
            }
        }
    }

    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        let is_ok = reader.arm(&RESULT_ARMS)?;
        Ok(if is_ok { Ok(T::read(reader)?) } else { Err(E::read(reader)?) })
    }
}

impl<T: Codec> Codec for Vec<T> {
    const MIN_SIZE: usize = 1;

    fn write(&self, writer: &mut Writer<'_>) -> Result<(), NotInVersion> {
        writer.length(self.len());
        self.iter().try_for_each(|item| item.write(writer))
    }

    fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        const { assert!(T::MIN_SIZE > 0, "a count of items without bytes could not be checked against the frame") };
        let count = reader.items(T::MIN_SIZE)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(T::read(reader)?);
        }
        Ok(items)
    }
}
