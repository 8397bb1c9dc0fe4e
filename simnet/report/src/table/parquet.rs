//! A table as Parquet: Snappy, one row group a batch.
//!
//! Owns: the translation of our columns to Parquet's. Must not: know which tables there are.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{Type, TypePtr};

use super::batch::{Batch, Data, Values};
use crate::schema::{Column, Kind, Table};

fn field(column: &Column) -> Result<TypePtr, ParquetError> {
    let physical = match column.kind {
        Kind::Integer => Physical::INT64,
        Kind::Real => Physical::DOUBLE,
        Kind::Text => Physical::BYTE_ARRAY,
        Kind::Flag => Physical::BOOLEAN,
    };
    let repetition = if column.nullable { Repetition::OPTIONAL } else { Repetition::REQUIRED };
    let mut builder =
        Type::primitive_type_builder(column.name, physical).with_repetition(repetition);
    if column.kind == Kind::Text {
        builder = builder.with_logical_type(Some(LogicalType::String));
    }
    builder.build().map(Arc::new)
}

/// A file that has only its head.
pub(super) fn open(file: File, table: &Table) -> Result<SerializedFileWriter<File>, ParquetError> {
    let fields = table.columns.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    let schema = Type::group_type_builder(table.name).with_fields(fields).build()?;
    let meaning = serde_json::to_string(table).ok();
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(vec![KeyValue::new("simnet.table".to_owned(), meaning)]))
        .build();
    SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))
}

/// Adds a batch as a row group.
pub(super) fn rows(
    out: &mut SerializedFileWriter<File>,
    batch: &Batch,
) -> Result<(), ParquetError> {
    let mut group = out.next_row_group()?;
    for (values, column) in batch.columns.iter().zip(batch.table.columns) {
        if let Some(mut writer) = group.next_column()? {
            write_column(&mut writer, values, column.nullable)?;
            writer.close()?;
        }
    }
    group.close().map(|_metadata| ())
}

fn write_column(
    writer: &mut SerializedColumnWriter<'_>,
    values: &Values,
    nullable: bool,
) -> Result<(), ParquetError> {
    let levels: Option<Vec<i16>> =
        nullable.then(|| values.present.iter().map(|it| i16::from(*it)).collect());
    let levels = levels.as_deref();
    match &values.data {
        Data::Integer(data) => writer.typed::<Int64Type>().write_batch(data, levels, None),
        Data::Real(data) => writer.typed::<DoubleType>().write_batch(data, levels, None),
        Data::Flag(data) => writer.typed::<BoolType>().write_batch(data, levels, None),
        Data::Text { indices, words, .. } => {
            let words: Vec<ByteArray> =
                words.iter().map(|it| Bytes::from(it.clone().into_bytes()).into()).collect();
            let find = |index: &u32| words.get(usize::try_from(*index).ok()?).cloned();
            let data: Vec<ByteArray> = indices.iter().filter_map(find).collect();
            writer.typed::<ByteArrayType>().write_batch(&data, levels, None)
        }
    }
    .map(|_written| ())
}
