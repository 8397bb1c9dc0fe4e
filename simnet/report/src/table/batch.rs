//! Rows of one table, held by column.
//!
//! Owns: the columns' memory and their canonical bytes. Must not: know a file.

use std::collections::BTreeMap;

use crate::schema::{Kind, Table};

/// Bytes of rows that are hashed together, or more.
const HASHED_AT_ONCE: usize = 32 * 1024;

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Nothing.
    Empty,
    /// A whole number.
    Integer(i64),
    /// A number.
    Real(f64),
    /// A text.
    Text(&'a str),
    /// A flag.
    Flag(bool),
}

impl From<u64> for Cell<'_> {
    fn from(value: u64) -> Self {
        // Nothing that is counted comes near 2^63; what does is shown as the greatest that fits.
        Self::Integer(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Cell<'_> {
    fn from(value: u32) -> Self {
        Self::Integer(i64::from(value))
    }
}

impl From<f64> for Cell<'_> {
    fn from(value: f64) -> Self {
        if value.is_finite() { Self::Real(value) } else { Self::Empty }
    }
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a, T: Into<Self>> From<Option<T>> for Cell<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Cell::Empty, Into::into)
    }
}

/// The values of one column. A value stands where its flag in `present` is set.
#[derive(Debug)]
pub(crate) struct Values {
    pub(crate) present: Vec<bool>,
    pub(crate) data: Data,
}

/// The values that are there, without gaps.
#[derive(Debug)]
pub(crate) enum Data {
    Integer(Vec<i64>),
    Real(Vec<f64>),
    /// Indices into the words, and the words in order of their first appearance.
    Text {
        indices: Vec<u32>,
        words: Vec<String>,
        places: BTreeMap<String, u32>,
    },
    Flag(Vec<bool>),
}

impl Values {
    fn new(kind: Kind) -> Self {
        let data = match kind {
            Kind::Integer => Data::Integer(Vec::new()),
            Kind::Real => Data::Real(Vec::new()),
            Kind::Text => {
                Data::Text { indices: Vec::new(), words: Vec::new(), places: BTreeMap::new() }
            }
            Kind::Flag => Data::Flag(Vec::new()),
        };
        Self { present: Vec::new(), data }
    }

    /// Adds a value. One of the wrong kind, or none, is an empty value.
    fn push(&mut self, cell: Cell<'_>) {
        let fits = match (&mut self.data, cell) {
            (Data::Integer(values), Cell::Integer(value)) => {
                values.push(value);
                true
            }
            (Data::Real(values), Cell::Real(value)) => {
                values.push(value);
                true
            }
            (Data::Flag(values), Cell::Flag(value)) => {
                values.push(value);
                true
            }
            (Data::Text { indices, words, places }, Cell::Text(text)) => {
                let index = places.get(text).copied().unwrap_or_else(|| {
                    let index = u32::try_from(words.len()).unwrap_or(u32::MAX);
                    words.push(text.to_owned());
                    places.insert(text.to_owned(), index);
                    index
                });
                indices.push(index);
                true
            }
            _ => false,
        };
        self.present.push(fits);
    }

    /// The value at the `nth` place among those that are there.
    pub(crate) fn cell(&self, nth: usize) -> Cell<'_> {
        match &self.data {
            Data::Integer(values) => values.get(nth).map_or(Cell::Empty, |it| Cell::Integer(*it)),
            Data::Real(values) => values.get(nth).map_or(Cell::Empty, |it| Cell::Real(*it)),
            Data::Flag(values) => values.get(nth).map_or(Cell::Empty, |it| Cell::Flag(*it)),
            Data::Text { indices, words, .. } => {
                let word = indices.get(nth).and_then(|it| words.get(usize::try_from(*it).ok()?));
                word.map_or(Cell::Empty, |it| Cell::Text(it))
            }
        }
    }
}

/// Some rows of a table.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) table: &'static Table,
    pub(crate) rows: usize,
    pub(crate) columns: Vec<Values>,
}

impl Batch {
    pub(crate) fn new(table: &'static Table) -> Self {
        let columns = table.columns.iter().map(|it| Values::new(it.kind)).collect();
        Self { table, rows: 0, columns }
    }

    /// Adds a row; cells that are missing are empty.
    pub(crate) fn push(&mut self, row: &[Cell<'_>]) {
        debug_assert_eq!(row.len(), self.columns.len(), "{}", self.table.name);
        let cells = row.iter().copied().chain(std::iter::repeat(Cell::Empty));
        for (values, cell) in self.columns.iter_mut().zip(cells) {
            values.push(cell);
        }
        self.rows += 1;
    }

    /// Every row in turn, as cells.
    pub(crate) fn for_each_row<E>(
        &self,
        mut visit: impl FnMut(&[Cell<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut taken = vec![0_usize; self.columns.len()];
        let mut row = Vec::with_capacity(self.columns.len());
        for index in 0..self.rows {
            row.clear();
            for (values, taken) in self.columns.iter().zip(&mut taken) {
                if values.present.get(index).copied().unwrap_or(false) {
                    row.push(values.cell(*taken));
                    *taken += 1;
                } else {
                    row.push(Cell::Empty);
                }
            }
            visit(&row)?;
        }
        Ok(())
    }

    /// Feeds the rows' canonical bytes, as `docs/tables.md` describes them, to a hash.
    pub(crate) fn hash_into(&self, hasher: &mut blake3::Hasher) {
        let mut bytes = Vec::with_capacity(HASHED_AT_ONCE + 1024);
        let fed: Result<(), std::convert::Infallible> = self.for_each_row(|row| {
            for cell in row {
                match *cell {
                    Cell::Empty => bytes.push(0),
                    Cell::Integer(value) => {
                        bytes.push(1);
                        bytes.extend_from_slice(&value.to_le_bytes());
                    }
                    Cell::Real(value) => {
                        bytes.push(1);
                        bytes.extend_from_slice(&value.to_le_bytes());
                    }
                    Cell::Flag(value) => bytes.extend_from_slice(&[1, u8::from(value)]),
                    Cell::Text(text) => {
                        bytes.push(1);
                        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                        bytes.extend_from_slice(&length.to_le_bytes());
                        bytes.extend_from_slice(text.as_bytes());
                    }
                }
            }
            // In large pieces, whose parts the hash takes side by side.
            if bytes.len() >= HASHED_AT_ONCE {
                hasher.update(&bytes);
                bytes.clear();
            }
            Ok(())
        });
        let Ok(()) = fed;
        hasher.update(&bytes);
    }
}
