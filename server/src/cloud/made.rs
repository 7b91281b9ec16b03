//! Files that tests make byte by byte.

use std::io::Write;

/// An array file of version 1.
pub(super) fn npy(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let fortran = if fortran { "True" } else { "False" };
    let head = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend_from_slice(&(head.len() as u16).to_le_bytes());
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(data);
    out
}

pub(super) fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A zip archive.
pub(super) fn zip(files: &[(&str, Vec<u8>)], deflate: bool) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in files {
        let mut crc = flate2::Crc::new();
        crc.update(data);
        let packed = if deflate {
            let mut to = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
            to.write_all(data).unwrap();
            to.finish().unwrap()
        } else {
            data.clone()
        };
        let mut head = vec![20, 0, 0, 0, if deflate { 8 } else { 0 }, 0, 0, 0, 0, 0];
        head.extend(crc.sum().to_le_bytes());
        head.extend((packed.len() as u32).to_le_bytes());
        head.extend((data.len() as u32).to_le_bytes());
        head.extend((name.len() as u16).to_le_bytes());
        head.extend([0, 0]);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&head);
        directory.extend([0; 10]);
        directory.extend((out.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&head);
        out.extend(name.as_bytes());
        out.extend(&packed);
    }
    let begin = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend((files.len() as u16).to_le_bytes());
    out.extend((files.len() as u16).to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(begin.to_le_bytes());
    out.extend([0, 0]);
    out
}

/// A LAS 1.2 file of format 3 with one point per (X, class, red), scale 0.01, offset 500,000.
pub(super) fn las(points: &[(i32, u8, u16)]) -> Vec<u8> {
    let mut out = vec![0; 227];
    out[..4].copy_from_slice(b"LASF");
    out[24..26].copy_from_slice(&[1, 2]);
    out[94..96].copy_from_slice(&227_u16.to_le_bytes());
    out[96..100].copy_from_slice(&227_u32.to_le_bytes());
    out[104..107].copy_from_slice(&[3, 34, 0]);
    out[107..111].copy_from_slice(&(points.len() as u32).to_le_bytes());
    for axis in 0..3 {
        out[131 + 8 * axis..139 + 8 * axis].copy_from_slice(&0.01_f64.to_le_bytes());
        out[155 + 8 * axis..163 + 8 * axis].copy_from_slice(&500_000_f64.to_le_bytes());
    }
    for &(x, class, red) in points {
        let mut record = [0; 34];
        record[..4].copy_from_slice(&x.to_le_bytes());
        record[12..14].copy_from_slice(&40_000_u16.to_le_bytes());
        record[15] = class | 0xe0; // synthetic, key point, withheld
        record[28..30].copy_from_slice(&red.to_le_bytes());
        out.extend_from_slice(&record);
    }
    out
}

/// The file of [`las`] compressed, with chunks of `chunk` points; of 1, 2, 3, ... points without.
pub(super) fn laz(points: &[(i32, u8, u16)], chunk: Option<u32>) -> Vec<u8> {
    let mut out = las(points);
    let records = out.split_off(227);
    let builder = laz::LazVlrBuilder::default().with_point_format(3, 0).unwrap();
    let vlr = match chunk {
        Some(size) => builder.with_fixed_chunk_size(size),
        None => builder.with_variable_chunk_size(),
    }
    .build();
    let mut record = Vec::new();
    vlr.write_to(&mut record).unwrap();
    let mut head = [0; 54];
    head[2..2 + laz::LazVlr::USER_ID.len()].copy_from_slice(laz::LazVlr::USER_ID.as_bytes());
    head[18..20].copy_from_slice(&laz::LazVlr::RECORD_ID.to_le_bytes());
    head[20..22].copy_from_slice(&(record.len() as u16).to_le_bytes());
    out.extend(head);
    out.extend(&record);
    let begin = out.len() as u32;
    out[96..100].copy_from_slice(&begin.to_le_bytes());
    out[100..104].copy_from_slice(&1_u32.to_le_bytes());
    out[104] |= 0x80;
    let mut to = std::io::Cursor::new(out);
    to.set_position(u64::from(begin));
    let mut packer = laz::LasZipCompressor::new(&mut to, vlr).unwrap();
    let (mut filled, mut next) = (0, 1);
    for record in records.chunks(34) {
        if chunk.is_none() && filled == next {
            packer.finish_current_chunk().unwrap();
            (filled, next) = (0, next + 1);
        }
        packer.compress_one(record).unwrap();
        filled += 1;
    }
    packer.done().unwrap();
    drop(packer);
    to.into_inner()
}
