//! Names of addresses of one executable: `resolve FILE [ADDRESS…]`, addresses in hex, from standard input without any.
//!
//! One line an address: functions outermost first, each with file and line where known, or the reason why not.

use std::fs::File;
use std::io::{BufRead, BufWriter, Write};

use anyhow::Context;
use everflame::model::ElfAddr;
use everflame::symbols::{SymbolIndex, elf::Elf, mapped::ImageFile};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("usage: resolve FILE [ADDRESS…]")?;
    let image = ImageFile::open(File::open(&path).with_context(|| path.clone())?)?;
    let index = SymbolIndex::build(&Elf::open(image)?, None)?;

    let mut addresses: Box<dyn Iterator<Item = std::io::Result<String>>> = Box::new(arguments.map(Ok));
    let first = addresses.next();
    if first.is_none() {
        addresses = Box::new(std::io::stdin().lock().lines());
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    for address in first.into_iter().chain(addresses) {
        let address = address?;
        let number =
            u64::from_str_radix(address.trim_start_matches("0x"), 16).with_context(|| address.clone())?;
        match index.lookup(ElfAddr(number)) {
            Ok(lines) => {
                let show = |line: &everflame::model::SourceLine| match &*line.file {
                    "" => line.function.to_string(),
                    file => format!("{} ({file}:{})", line.function, line.line),
                };
                let names: Vec<String> = lines.iter().map(show).collect();
                writeln!(out, "{address} {}", names.join(" > "))?;
            }
            Err(reason) => writeln!(out, "{address} [{reason}]")?,
        }
    }
    Ok(())
}
