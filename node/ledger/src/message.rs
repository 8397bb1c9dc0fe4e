//! Messages to contracts: external ones that we send, internal ones that wallets carry.
//!
//! Owns: building and checking message cells, and their hashes.
//! Must not: sign anything; a body comes in finished.

use std::fmt;

use cocoon_protocol::identity::TonAddress;
use cocoon_protocol::units::NanoTon;
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellFamily as _, HashBytes, Store as _};
use tycho_types::error::Error as CellError;
use tycho_types::models::{
    CurrencyCollection, ExtInMsgInfo, MsgInfo, OwnedMessage, OwnedRelaxedMessage,
    RelaxedIntMsgInfo, RelaxedMsgInfo, StateInit,
};
use tycho_types::num::Tokens;

use crate::address::{from_int, to_std};

/// Largest external message in bytes, as in TON's size limits (configuration parameter 43).
pub const MESSAGE_BYTES: usize = 65_535;
/// Deepest external message in cells, from the same limits.
pub const MESSAGE_DEPTH: u16 = 512;

/// The hash of a message's cell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageHash(pub [u8; 32]);

impl fmt::Display for MessageHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for MessageHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageHash({self})")
    }
}

/// Why a message cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// Larger or deeper than the network takes.
    #[error("the message is larger than the network takes ({MESSAGE_BYTES} bytes)")]
    TooLarge,
    /// Not a bag of cells with one root.
    #[error("the bytes are no bag of cells with one root")]
    NotABagOfCells,
    /// The cell is no message.
    #[error("the cell is no TON message")]
    NotAMessage,
    /// Only external messages can be sent from outside.
    #[error("only an external message with a standard address can be sent")]
    NotExternal,
    /// The parts do not fit into a cell.
    #[error("the message does not fit into a cell")]
    Overflow,
}

/// A checked external message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    destination: TonAddress,
    cell: Cell,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("destination", &self.destination)
            .field("hash", &self.hash())
            .finish_non_exhaustive()
    }
}

impl Message {
    /// A message to `destination`, with the initial state if the contract may not exist yet.
    ///
    /// # Errors
    ///
    /// When the parts do not fit.
    pub fn external(
        destination: TonAddress,
        init: Option<StateInit>,
        body: Cell,
    ) -> Result<Self, InvalidMessage> {
        let info = MsgInfo::ExtIn(ExtInMsgInfo {
            src: None,
            dst: to_std(destination).into(),
            import_fee: Tokens::ZERO,
        });
        let message = OwnedMessage { info, init, body: body.into(), layout: None };
        let cell = CellBuilder::build_from(&message).map_err(|_| InvalidMessage::Overflow)?;
        Ok(Self { destination, cell })
    }

    /// Checks that `cell` is an external message.
    ///
    /// # Errors
    ///
    /// When it is none, or too deep.
    pub fn from_cell(cell: Cell) -> Result<Self, InvalidMessage> {
        if cell.repr_depth() > MESSAGE_DEPTH {
            return Err(InvalidMessage::TooLarge);
        }
        let message = cell.parse::<OwnedMessage>().map_err(|_| InvalidMessage::NotAMessage)?;
        let MsgInfo::ExtIn(info) = &message.info else {
            return Err(InvalidMessage::NotExternal);
        };
        let destination = from_int(&info.dst).ok_or(InvalidMessage::NotExternal)?;
        Ok(Self { destination, cell })
    }

    /// Reads a bag of cells, as wallets and libraries hand it over.
    ///
    /// # Errors
    ///
    /// When it is larger than [`MESSAGE_BYTES`] or no external message.
    pub fn from_boc(bytes: &[u8]) -> Result<Self, InvalidMessage> {
        if bytes.len() > MESSAGE_BYTES {
            return Err(InvalidMessage::TooLarge);
        }
        let cell = Boc::decode(bytes).map_err(|_| InvalidMessage::NotABagOfCells)?;
        Self::from_cell(cell)
    }

    /// Whom it is for.
    pub const fn destination(&self) -> TonAddress {
        self.destination
    }

    /// The message as a cell.
    pub const fn cell(&self) -> &Cell {
        &self.cell
    }

    /// What it says. The same in every serialisation of the message, unlike its hash.
    ///
    /// # Errors
    ///
    /// Never for a message that was built or parsed here; the type has to say so.
    pub fn body(&self) -> Result<Cell, InvalidMessage> {
        let parsed = self.cell.parse::<OwnedMessage>().map_err(|_| InvalidMessage::NotAMessage)?;
        let (range, cell) = parsed.body;
        range.apply(&cell).and_then(CellBuilder::build_from).map_err(|_| InvalidMessage::Overflow)
    }

    /// The message as a bag of cells.
    pub fn to_boc(&self) -> Vec<u8> {
        Boc::encode(&self.cell)
    }

    /// The hash of the cell as it was built.
    pub fn hash(&self) -> MessageHash {
        MessageHash(self.cell.repr_hash().0)
    }

    /// The hash after normalisation (TEP-467): no source, no initial state, no import fee, body in
    /// a reference. The same for every serialisation of one message.
    ///
    /// # Errors
    ///
    /// Never for a message that was built or parsed here; the type has to say so.
    pub fn normalised_hash(&self) -> Result<MessageHash, InvalidMessage> {
        let overflow = |_| InvalidMessage::Overflow;
        let body = self.body()?;
        let mut builder = CellBuilder::new();
        builder.store_uint(0b1000, 4).map_err(overflow)?;
        to_std(self.destination)
            .store_into(&mut builder, Cell::empty_context())
            .map_err(overflow)?;
        builder.store_uint(0, 4).map_err(overflow)?;
        builder.store_uint(0b01, 2).map_err(overflow)?;
        builder.store_reference(body).map_err(overflow)?;
        Ok(MessageHash(builder.build().map_err(overflow)?.repr_hash().0))
    }
}

/// A message that a wallet shall send on.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Whom it is for.
    pub destination: TonAddress,
    /// What it carries.
    pub value: NanoTon,
    /// Whether the money comes back when no contract takes it. `false` to fund a new account.
    pub bounce: bool,
    /// The initial state of a contract to deploy.
    pub init: Option<StateInit>,
    /// What it says; the empty cell for a plain transfer.
    pub body: Cell,
}

impl Transfer {
    /// Money and nothing else.
    pub fn plain(destination: TonAddress, value: NanoTon) -> Self {
        Self { destination, value, bounce: false, init: None, body: Cell::empty_cell() }
    }

    /// Money with a text for whoever receives it; an empty text is none.
    ///
    /// # Errors
    ///
    /// When the text is longer than [`COMMENT_BYTES`].
    pub fn with_comment(mut self, text: &str) -> Result<Self, InvalidMessage> {
        if !text.is_empty() {
            self.body = comment_cell(text)?;
        }
        Ok(self)
    }

    /// The internal message as a wallet wants it: the network fills in the source.
    ///
    /// # Errors
    ///
    /// When the parts do not fit into a cell.
    pub fn to_cell(&self) -> Result<Cell, InvalidMessage> {
        let info = RelaxedIntMsgInfo {
            ihr_disabled: true,
            bounce: self.bounce,
            dst: to_std(self.destination).into(),
            value: CurrencyCollection::new(u128::from(self.value.as_nano())),
            ..RelaxedIntMsgInfo::default()
        };
        let message = OwnedRelaxedMessage {
            info: RelaxedMsgInfo::Int(info),
            init: self.init.clone(),
            body: self.body.clone().into(),
            layout: None,
        };
        CellBuilder::build_from(&message).map_err(|_| InvalidMessage::Overflow)
    }
}

/// Longest comment in bytes: eight cells, far below what the network takes.
pub const COMMENT_BYTES: usize = 123 + 7 * CELL_BYTES;
/// Bytes that a cell holds beside a reference.
const CELL_BYTES: usize = 127;
/// Bytes of the comment's first cell, after its opcode of zero.
const FIRST_BYTES: usize = 123;

/// A comment as wallets write and show it: 32 zero bits, then UTF-8, continued in a chain of
/// references ("snake").
///
/// # Errors
///
/// When the text is longer than [`COMMENT_BYTES`].
pub fn comment_cell(text: &str) -> Result<Cell, InvalidMessage> {
    let bytes = text.as_bytes();
    if bytes.len() > COMMENT_BYTES {
        return Err(InvalidMessage::TooLarge);
    }
    let (first, rest) = bytes.split_at(bytes.len().min(FIRST_BYTES));
    let overflow = |_| InvalidMessage::Overflow;
    let mut tail: Option<Cell> = None;
    for chunk in rest.chunks(CELL_BYTES).rev() {
        tail = Some(snake_cell(&[], chunk, tail.take()).map_err(overflow)?);
    }
    snake_cell(&[0; 4], first, tail).map_err(overflow)
}

fn snake_cell(prefix: &[u8], bytes: &[u8], tail: Option<Cell>) -> Result<Cell, CellError> {
    let mut builder = CellBuilder::new();
    for part in [prefix, bytes] {
        let bits = u16::try_from(part.len().saturating_mul(8));
        builder.store_raw(part, bits.map_err(|_| CellError::CellOverflow)?)?;
    }
    if let Some(tail) = tail {
        builder.store_reference(tail)?;
    }
    builder.build()
}

/// The comment in a message's body, if it is one. Whoever sent it chose the text: it may hold
/// anything that UTF-8 can, up to [`COMMENT_BYTES`].
pub fn comment_text(body: &Cell) -> Option<String> {
    let mut bytes = Vec::new();
    let mut next = Some(body.clone());
    while let Some(cell) = next {
        let mut slice = cell.as_slice().ok()?;
        if bytes.is_empty() && slice.load_u32().ok()? != 0 {
            return None;
        }
        let bits = slice.size_bits();
        if bits % 8 != 0 {
            return None;
        }
        let mut part = vec![0; usize::from(bits / 8)];
        slice.load_raw(&mut part, bits).ok()?;
        // An empty first cell would be read as the first again.
        if part.is_empty() || bytes.len().saturating_add(part.len()) > COMMENT_BYTES {
            break;
        }
        bytes.append(&mut part);
        next = slice.load_reference_cloned().ok();
    }
    if bytes.is_empty() { None } else { String::from_utf8(bytes).ok() }
}

/// The address that a contract with this initial state has in the basechain.
///
/// # Errors
///
/// When the state does not fit into a cell.
pub fn contract_address(init: &StateInit) -> Result<TonAddress, InvalidMessage> {
    let cell = CellBuilder::build_from(init).map_err(|_| InvalidMessage::Overflow)?;
    let HashBytes(hash) = *cell.repr_hash();
    Ok(TonAddress { workchain: 0, hash })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Message::from_boc(&bytes).is_err());
        }

        #[test]
        fn damaged_messages_never_panic(at in 0usize..100, with: u8) {
            let destination = TonAddress { workchain: 0, hash: [1; 32] };
            let mut bytes = Message::external(destination, None, Cell::empty_cell()).unwrap().to_boc();
            let length = bytes.len();
            bytes[at % length] = with;
            let _ = Message::from_boc(&bytes);
            let _ = Message::from_boc(&bytes[..at % length]);
        }
    }

    #[test]
    fn a_message_survives_its_bytes_and_normalisation_ignores_the_state() {
        let destination = TonAddress { workchain: 0, hash: [1; 32] };
        let plain = Message::external(destination, None, Cell::empty_cell()).unwrap();
        assert_eq!(Message::from_boc(&plain.to_boc()).unwrap(), plain);
        let init = StateInit::default();
        let deploy = Message::external(destination, Some(init), Cell::empty_cell()).unwrap();
        assert_ne!(plain.hash(), deploy.hash());
        assert_eq!(plain.normalised_hash(), deploy.normalised_hash());
    }

    #[test]
    fn comments_are_read_as_they_were_written() {
        for length in [1, 122, 123, 124, 250, 251, COMMENT_BYTES] {
            let text = "x".repeat(length);
            assert_eq!(comment_text(&comment_cell(&text).unwrap()), Some(text));
        }
        assert!(comment_cell(&"x".repeat(COMMENT_BYTES + 1)).is_err());
        assert_eq!(comment_text(&Cell::empty_cell()), None);
        // Another operation, and a text that is none.
        let other = CellBuilder::build_from(1_u32).unwrap();
        assert_eq!(comment_text(&other), None);
        assert_eq!(comment_text(&snake_cell(&[0; 4], &[0xff], None).unwrap()), None);
    }

    #[test]
    fn an_internal_message_cannot_be_sent_from_outside() {
        let transfer = Transfer::plain(TonAddress { workchain: 0, hash: [1; 32] }, NanoTon::ZERO);
        let cell = transfer.to_cell().unwrap();
        assert!(Message::from_cell(cell).is_err());
    }
}
