//! Turns the tables of `spec/envoy-protocol.md` 5 into Rust types with a codec.
//!
//! `wire_structs!` takes plain structs, `wire_unions!` plain enums; both in wire order. An item marked
//! `#[since(N)]` exists from protocol version N on:
//!
//! * a *field* is left out when writing an older version and takes its `Default` when reading one;
//! * an *arm* cannot be written in an older version (a typed error), and the arms behind it close the gap: the tag of
//!   an arm is the number of arms before it that the version has. That is how the tag tables of section 6.1 come about.

/// Structs: their fields in order, nothing else on the wire.
macro_rules! wire_structs {
    ($(
        $(#[doc = $doc:literal])*
        struct $name:ident {
            $(
                $(#[doc = $field_doc:literal])*
                $(#[since($since:literal)])?
                $field:ident: $ty:ty,
            )*
        }
    )+) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $(
                $(#[doc = $field_doc])*
                $(#[doc = concat!("\n\nSince protocol version ", $since, ".")])?
                pub $field: $ty,
            )*
        }

        impl bare::Codec for $name {
            // A field that some version lacks may take no bytes at all.
            const MIN_SIZE: usize = 0 $(+ ($(if $since > crate::envoy::MIN_PROTOCOL_VERSION { 0 } else)? {
                <$ty as bare::Codec>::MIN_SIZE
            }))*;

            fn write(&self, writer: &mut bare::Writer<'_>) -> Result<(), bare::NotInVersion> {
                $($(if writer.version() >= $since)? {
                    bare::Codec::write(&self.$field, writer)?;
                })*
                Ok(())
            }

            fn read(reader: &mut bare::Reader) -> Result<Self, bare::DecodeError> {
                Ok(Self {
                    $($field: $(if reader.version() < $since { Default::default() } else)? {
                        bare::Codec::read(reader)?
                    },)*
                })
            }
        }
    )+};
}

/// Unions and enums: the arm's tag, then the arm's value. `enum` instead of `union` marks the all-void ones, which
/// are `Copy`.
macro_rules! wire_unions {
    () => {};
    ($(#[doc = $doc:literal])* union $name:ident { $($arms:tt)* } $($rest:tt)*) => {
        wire_unions!(@one [Debug, Clone, PartialEq] $(#[doc = $doc])* $name { $($arms)* });
        wire_unions!($($rest)*);
    };
    ($(#[doc = $doc:literal])* enum $name:ident { $($arms:tt)* } $($rest:tt)*) => {
        wire_unions!(@one [Debug, Clone, Copy, PartialEq, Eq, Hash] $(#[doc = $doc])* $name { $($arms)* });
        wire_unions!($($rest)*);
    };
    (@one [$($derive:ident),+] $(#[doc = $doc:literal])* $name:ident {
        $(
            $(#[doc = $arm_doc:literal])*
            $(#[since($since:literal)])?
            $arm:ident
            $(($payload:ty))?
            $({ $( $(#[doc = $field_doc:literal])* $field:ident: $ty:ty, )+ })?
            ,
        )+
    }) => {
        $(#[doc = $doc])*
        #[derive($($derive),+)]
        pub enum $name {
            $(
                $(#[doc = $arm_doc])*
                $(#[doc = concat!("\n\nSince protocol version ", $since, ".")])?
                $arm $(($payload))? $({ $( $(#[doc = $field_doc])* $field: $ty, )+ })?,
            )+
        }

        const _: () = {
            /// The arms without their values.
            #[allow(clippy::enum_variant_names, reason = "the names are those of the specification")]
            #[derive(Clone, Copy)]
            enum Arm { $($arm),+ }

            const ARMS: bare::Arms<Arm> = bare::Arms {
                union: stringify!($name),
                arms: &[$(bare::Arm {
                    name: stringify!($arm),
                    since: 0 $(+ $since)?,
                    key: Arm::$arm,
                }),+],
            };

            impl bare::Codec for $name {
                const MIN_SIZE: usize = 1;

                fn write(&self, writer: &mut bare::Writer<'_>) -> Result<(), bare::NotInVersion> {
                    match self {
                        // `{ 0: value }` is the one pattern form that fits arms of every shape.
                        $(Self::$arm { $(0: crate::envoy::wire::bind!($payload, value))? $($($field,)+)? } => {
                            writer.arm(&ARMS, Arm::$arm as usize)?;
                            $(<$payload as bare::Codec>::write(value, writer)?;)?
                            $($(<$ty as bare::Codec>::write($field, writer)?;)+)?
                        })+
                    }
                    Ok(())
                }

                fn read(reader: &mut bare::Reader) -> Result<Self, bare::DecodeError> {
                    Ok(match reader.arm(&ARMS)? {
                        $(Arm::$arm => Self::$arm {
                            $(0: <$payload as bare::Codec>::read(reader)?)?
                            $($($field: <$ty as bare::Codec>::read(reader)?,)+)?
                        },)+
                    })
                }
            }
        };
    };
}

/// Names the value of an arm that has one: macro repetitions must mention the variable that they repeat over.
macro_rules! bind {
    ($payload:ty, $name:ident) => {
        $name
    };
}

pub(super) use {bind, wire_structs, wire_unions};
