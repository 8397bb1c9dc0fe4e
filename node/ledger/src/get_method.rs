//! Running a contract's get methods in this process, on whatever state the caller believes.
//!
//! Owns: the values on the machine's stack, bounded, and the way to and from tycho's.
//! Must not: ask a server for a result; `runGetMethod` elsewhere is never trusted.

use num_bigint::BigInt;
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder};
use tycho_types::dict::Dict;
use tycho_types::models::{Account, BlockchainConfigParams};
use tycho_vm::{
    OwnedCellSlice, RcStackValue, Stack, StackValueType, VmCaller, VmGetterArgs, VmGetterError,
};

/// Values in a result, nested ones included. A contract can return a tuple that contains itself a
/// thousand times over at no cost, so that the result is larger than memory; ours return a dozen.
/// What is beyond becomes [`StackEntry::Unsupported`].
const MAX_VALUES: usize = 4_096;
/// Nesting of tuples in arguments and results, for the same reason.
const MAX_NESTING: usize = 32;
/// Bytes of all cells in a result together. Larger cells become [`StackEntry::Unsupported`].
const MAX_CELL_BYTES: usize = 262_144;

/// Arguments of a get method.
const MAX_ARGUMENTS: u16 = 64;

/// A value on the machine's stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StackEntry {
    /// Nothing.
    Null,
    /// The integer that is none.
    NotANumber,
    /// An integer of at most 257 bits.
    Integer(BigInt),
    /// A cell.
    Cell(Cell),
    /// A slice, as a cell with the rest of it.
    Slice(Cell),
    /// A builder, as the cell that it would build.
    Builder(Cell),
    /// A tuple.
    Tuple(Vec<Self>),
    /// A continuation, or something beyond this module's bounds.
    Unsupported,
}

impl StackEntry {
    /// The integer, if it is one that fits.
    pub fn as_u64(&self) -> Option<u64> {
        if let Self::Integer(value) = self { u64::try_from(value).ok() } else { None }
    }
}

/// What a get method gave back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetMethodOutput {
    /// 0 or 1 when it succeeded.
    pub exit_code: i32,
    /// Gas that it would have used.
    pub gas_used: u64,
    /// What it left on the stack, the first value first.
    pub stack: Vec<StackEntry>,
}

/// Why a get method could not be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GetMethodError {
    /// The account has no code.
    #[error("the account has no code to run")]
    NoCode,
    /// An argument is too deeply nested or no integer of 257 bits.
    #[error("an argument is not a value that the machine knows")]
    BadArgument,
    /// The configuration parameters cannot be read.
    #[error("the network's parameters cannot be read")]
    BadConfig,
}

/// The number under which a contract knows the method `name`.
pub fn method_id(name: &str) -> u32 {
    u32::from(tycho_types::crc::crc_16(name.as_bytes())) | 0x1_0000
}

pub(crate) fn run(
    params: &BlockchainConfigParams,
    account: &Account,
    now: u32,
    method: u32,
    arguments: Vec<StackEntry>,
) -> Result<GetMethodOutput, GetMethodError> {
    let caller = VmCaller {
        libraries: Dict::new(),
        behaviour_modifiers: tycho_vm::BehaviourModifiers::default(),
        config: params.clone(),
    };
    let mut machine_arguments = VmGetterArgs::default();
    machine_arguments.now = now;
    let stack = arguments
        .into_iter()
        .map(|entry| to_machine(entry, MAX_NESTING))
        .collect::<Option<Vec<_>>>()
        .ok_or(GetMethodError::BadArgument)?;
    let output = caller.call_getter_ext(account, method, stack, &machine_arguments, None).map_err(
        |error| match error {
            VmGetterError::NoCode => GetMethodError::NoCode,
            VmGetterError::InvalidConfig(_) => GetMethodError::BadConfig,
        },
    )?;
    let mut budget = Budget { values: MAX_VALUES, cell_bytes: MAX_CELL_BYTES };
    let stack = output.stack.iter().map(|value| budget.take(value, MAX_NESTING)).collect();
    Ok(GetMethodOutput { exit_code: output.exit_code, gas_used: output.gas_used, stack })
}

fn to_machine(entry: StackEntry, nesting: usize) -> Option<RcStackValue> {
    Some(match entry {
        StackEntry::Null => Stack::make_null(),
        StackEntry::NotANumber => Stack::make_nan(),
        StackEntry::Integer(value) => {
            // 257 bits with the sign: the magnitude has at most 256.
            if value.bits() > 256 {
                return None;
            }
            RcStackValue::new_dyn_value(value)
        }
        StackEntry::Cell(cell) => RcStackValue::new_dyn_value(cell),
        StackEntry::Slice(cell) => {
            RcStackValue::new_dyn_value(OwnedCellSlice::new_allow_exotic(cell))
        }
        StackEntry::Builder(cell) => {
            let mut builder = CellBuilder::new();
            builder.store_slice(cell.as_slice_allow_exotic()).ok()?;
            RcStackValue::new_dyn_value(builder)
        }
        StackEntry::Tuple(entries) => {
            let nesting = nesting.checked_sub(1)?;
            let entries: Option<Vec<_>> =
                entries.into_iter().map(|entry| to_machine(entry, nesting)).collect();
            RcStackValue::new_dyn_value(entries?)
        }
        StackEntry::Unsupported => return None,
    })
}

/// Reads arguments as liteservers get them, a bag of cells with a `VmStack`; `None` when they are
/// none, or have tuples or continuations, which no method of ours takes: a tuple in few cells can
/// be larger than memory.
pub(crate) fn read_stack(bytes: &[u8]) -> Option<Vec<StackEntry>> {
    const TUPLE: u8 = 7;
    const CONTINUATION: u8 = 6;
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let mut cell = Boc::decode(bytes).ok()?;
    let mut depth = cell.as_slice().ok()?.load_uint(24).ok()?;
    if depth > u64::from(MAX_ARGUMENTS) {
        return None;
    }
    let mut budget = Budget { values: MAX_VALUES, cell_bytes: MAX_CELL_BYTES };
    let mut entries = Vec::new();
    let mut is_first = true;
    while depth > 0 {
        let next = {
            let mut slice = cell.as_slice().ok()?;
            if std::mem::take(&mut is_first) {
                slice.skip_first(24, 0).ok()?;
            }
            let rest = slice.load_reference_cloned().ok()?;
            if matches!(slice.get_u8(0).ok()?, TUPLE | CONTINUATION) {
                return None;
            }
            let value = Stack::load_stack_value(&mut slice).ok()?;
            entries.push(budget.take(&value, MAX_NESTING));
            rest
        };
        cell = next;
        depth -= 1;
    }
    entries.reverse();
    Some(entries)
}

/// Writes a result as liteservers give it; `None` when a value in it cannot be written.
pub(crate) fn write_stack(entries: Vec<StackEntry>) -> Option<Cell> {
    let values: Option<Vec<_>> =
        entries.into_iter().map(|entry| to_machine(entry, MAX_NESTING)).collect();
    CellBuilder::build_from(Stack::with_items(values?)).ok()
}

struct Budget {
    values: usize,
    cell_bytes: usize,
}

impl Budget {
    fn take(&mut self, value: &RcStackValue, nesting: usize) -> StackEntry {
        let Some(left) = self.values.checked_sub(1) else {
            return StackEntry::Unsupported;
        };
        self.values = left;
        if value.is_null() {
            StackEntry::Null
        } else if value.raw_ty() == StackValueType::Int as u8 {
            value.as_int().map_or(StackEntry::NotANumber, |int| StackEntry::Integer(int.clone()))
        } else if let Some(cell) = value.as_cell() {
            self.cell(Some(cell.clone()), StackEntry::Cell)
        } else if let Some(slice) = value.as_cell_slice() {
            self.cell(CellBuilder::build_from(slice.apply()).ok(), StackEntry::Slice)
        } else if let Some(builder) = value.as_cell_builder() {
            self.cell(builder.clone().build().ok(), StackEntry::Builder)
        } else if let Some(entries) = value.as_tuple() {
            let Some(nesting) = nesting.checked_sub(1) else {
                return StackEntry::Unsupported;
            };
            StackEntry::Tuple(entries.iter().map(|entry| self.take(entry, nesting)).collect())
        } else {
            StackEntry::Unsupported
        }
    }

    fn cell(&mut self, cell: Option<Cell>, into: fn(Cell) -> StackEntry) -> StackEntry {
        let Some(cell) = cell else {
            return StackEntry::Unsupported;
        };
        // Only distinct cells are counted, and no more of them than the bound allows.
        let cost = cell
            .compute_unique_stats(MAX_CELL_BYTES)
            .and_then(|stats| usize::try_from(stats.bit_count / 8 + stats.cell_count).ok());
        match cost.and_then(|cost| self.cell_bytes.checked_sub(cost)) {
            Some(left) => {
                self.cell_bytes = left;
                into(cell)
            }
            None => StackEntry::Unsupported,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_numbers_are_the_well_known_ones() {
        assert_eq!(method_id("seqno"), 85_143);
        assert_eq!(method_id("get_public_key"), 78_748);
    }

    #[test]
    fn a_tuple_that_doubles_at_every_level_is_cut_off() {
        let mut value = RcStackValue::new_dyn_value(BigInt::from(1));
        for _ in 0..30 {
            value = RcStackValue::new_dyn_value(vec![value.clone(), value]);
        }
        let mut budget = Budget { values: MAX_VALUES, cell_bytes: MAX_CELL_BYTES };
        let StackEntry::Tuple(_) = budget.take(&value, MAX_NESTING) else { panic!("no tuple") };
        assert_eq!(budget.values, 0);
    }

    #[test]
    fn integers_beyond_257_bits_are_refused() {
        let largest: BigInt = (BigInt::from(1) << 256) - 1;
        assert!(to_machine(StackEntry::Integer(largest.clone()), 1).is_some());
        assert!(to_machine(StackEntry::Integer(largest + 1), 1).is_none());
    }
}
