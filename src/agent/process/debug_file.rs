//! Separate debug files of executables, for the call frame information that only they may have.
//!
//! Looked for through the root of the process that maps the executable, and taken only when they carry its build ID (or,
//! where there is none, when their check sum is the one that the executable names). Names are none of this file's business.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::executable::Executable;
use super::executables::open_regular;
use super::procfs::proc_path;
use crate::model::FileOffset;
use crate::symbols::elf::{Elf, Section, mini_debug_info};
use crate::symbols::file_id::build_ids;
use crate::symbols::mapped::{Bytes, ImageFile, Window};

/// Where distributions install debug files.
const DEBUG_FOLDER: &str = "usr/lib/debug";
/// Largest `.gnu_debuglink`: a file name, padding and a check sum.
const MAX_LINK_BYTES: u64 = 512;
/// Largest debug file whose check sum is computed: 64 MiB, some 50 ms.
const MAX_SUMMED_BYTES: u64 = 64 << 20;
/// Bytes that are summed at once.
const SUMMED_AT_ONCE: usize = 64 << 10;
/// Largest packed MiniDebugInfo that is unpacked for its call frame information: 4 MiB.
const MAX_PACKED_BYTES: u64 = 4 << 20;

/// What an executable says about its debug file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Link {
    name: Vec<u8>,
    sum: u32,
}

/// The file with debug information of `elf` that has call frame information, if there is one.
pub(super) fn find(elf: &Elf, executable: &Executable) -> Option<Elf> {
    let root = proc_path(executable.seen_in, "root");
    separate(elf, &root, &executable.path).or_else(|| inside(elf)).filter(has_frames)
}

fn has_frames(elf: &Elf) -> bool {
    let sections = elf.sections();
    let section = sections.as_ref().ok().and_then(|sections| sections.by_name(".debug_frame"));
    section.is_some_and(Section::is_in_file)
}

/// A file of its own below `root`.
fn separate(elf: &Elf, root: &Path, path: &Path) -> Option<Elf> {
    let ids = build_ids(elf).ok()?;
    let id = ids.gnu_hex();
    let link = link(elf);
    let by_id = id
        .split_at_checked(2)
        .filter(|(_, rest)| !rest.is_empty())
        .map(|(first, rest)| root.join(DEBUG_FOLDER).join(format!(".build-id/{first}/{rest}.debug")));
    let by_link = link.as_ref().map(|link| linked(root, path, &link.name)).unwrap_or_default();
    by_id.into_iter().chain(by_link).find_map(|candidate| {
        let (file, _) = open_regular(&candidate).ok()?;
        let found = Elf::open(ImageFile::open(file).ok()?).ok()?;
        let is_same = match (&ids.gnu, &link) {
            (Some(_), _) => build_ids(&found).ok()?.gnu == ids.gnu,
            (None, Some(link)) => sum(found.image()) == Some(link.sum),
            (None, None) => false,
        };
        is_same.then_some(found)
    })
}

/// Places where a debug file of this name may lie, as debuggers look for it.
fn linked(root: &Path, path: &Path, name: &[u8]) -> Vec<PathBuf> {
    let name = Path::new(OsStr::from_bytes(name));
    // A name, not a way to somewhere else.
    let mut components = name.components();
    let is_name = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    let folder = path.parent().map(|folder| folder.strip_prefix("/").unwrap_or(folder));
    let Some(folder) = folder.filter(|_| is_name) else { return Vec::new() };
    vec![
        root.join(folder).join(name),
        root.join(folder).join(".debug").join(name),
        root.join(DEBUG_FOLDER).join(folder).join(name),
    ]
}

/// `.gnu_debuglink`: name, zeros up to a multiple of four, check sum.
fn link(elf: &Elf) -> Option<Link> {
    let sections = elf.sections().ok()?;
    let section = sections.by_name(".gnu_debuglink")?;
    let bytes = elf.section_bytes(".gnu_debuglink", section, MAX_LINK_BYTES).ok()?;
    let name = Bytes(&bytes).c_text(0, MAX_LINK_BYTES as usize)?;
    let sum = Bytes(&bytes).u32((name.len() as u64 + 1).next_multiple_of(4))?;
    (!name.is_empty()).then(|| Link { name: name.to_vec(), sum })
}

/// CRC-32 of a whole file.
fn sum(image: &ImageFile) -> Option<u32> {
    if image.size() > MAX_SUMMED_BYTES {
        return None;
    }
    let mut sum = flate2::Crc::new();
    let mut buffer = vec![0; SUMMED_AT_ONCE];
    let mut at = 0;
    while at < image.size() {
        let part = buffer.get_mut(..(image.size() - at).min(SUMMED_AT_ONCE as u64) as usize)?;
        image.read("debug file", FileOffset(at), part).ok()?;
        sum.update(part);
        at += part.len() as u64;
    }
    Some(sum.sum())
}

/// MiniDebugInfo.
fn inside(elf: &Elf) -> Option<Elf> {
    let sections = elf.sections().ok()?;
    let section = sections.by_name(".gnu_debugdata").filter(|section| section.is_in_file())?;
    let packed = elf.section_bytes(".gnu_debugdata", section, MAX_PACKED_BYTES).ok()?;
    let unpacked = mini_debug_info::unpack(&packed).ok()?;
    Elf::open(ImageFile::from(Window::from(unpacked))).ok()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use super::super::byte_budget::ByteBudget;
    use super::super::executable::tests::origin;
    use super::super::unwind_image;
    use super::*;
    use crate::unwind::Rule;

    /// Enough code that a search is worth it.
    const SOURCE: &str = "
        #define F(name) __attribute__((noinline)) int name(int n, int *p) { \\
            int a[64]; a[n & 63] = n; if (n > 0) name(n - 1, a); return *p + a[3]; }
        #define F4(name) F(name##0) F(name##1) F(name##2) F(name##3)
        F4(a) F4(b) F4(c) F4(d) F4(e) F4(f)
        #define C4(name) name##0(n, &n) + name##1(n, &n) + name##2(n, &n) + name##3(n, &n)
        int main(int n, char **argv) { (void)argv; return C4(a) + C4(b) + C4(c) + C4(d) + C4(e) + C4(f); }
    ";

    /// Runs a tool in `folder`; false where there is none.
    fn run(folder: &Path, tool: &str, arguments: &[&str]) -> bool {
        match Command::new(tool).args(arguments).current_dir(folder).output() {
            Ok(output) => {
                assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
                true
            }
            Err(missing) => {
                crate::cannot_run::cannot_run(tool, &missing.to_string());
                false
            }
        }
    }

    /// A stripped program without call frame information of its own, and its debug file `program.debug`.
    fn split(folder: &Path, build_id: &str) -> bool {
        std::fs::write(folder.join("program.c"), SOURCE).unwrap();
        let silent = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-exceptions"];
        let id = format!("-Wl,--build-id={build_id}");
        let arguments = [&silent[..], &["-O2", "-g", &id, "-o", "program", "program.c"]].concat();
        run(folder, "gcc", &arguments)
            && run(folder, "objcopy", &["--only-keep-debug", "program", "program.debug"])
            && run(folder, "strip", &["program"])
            && run(folder, "objcopy", &["--add-gnu-debuglink=program.debug", "program"])
    }

    fn open(path: &Path) -> Elf {
        Elf::open(ImageFile::open(File::open(path).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn debug_file_is_found_by_build_id_and_only_if_it_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        if !split(folder.path(), "0x00112233445566778899aabbccddeeff00112233") {
            return;
        }
        let elf = open(&folder.path().join("program"));
        let path = Path::new("/opt/program");
        let root = folder.path().join("root");
        let place = root.join("usr/lib/debug/.build-id/00/112233445566778899aabbccddeeff00112233.debug");
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        assert!(separate(&elf, &root, path).is_none());
        std::fs::copy(folder.path().join("program.debug"), &place).unwrap();
        assert!(separate(&elf, &root, path).is_some_and(|found| has_frames(&found)));
        assert!(run(
            folder.path(),
            "objcopy",
            &["--remove-section=.note.gnu.build-id", "program.debug", "other"]
        ));
        std::fs::copy(folder.path().join("other"), &place).unwrap();
        assert!(separate(&elf, &root, path).is_none());
    }

    #[test]
    fn debug_file_is_found_by_name_and_check_sum_and_gives_the_rules() {
        let folder = tempfile::tempdir().unwrap();
        if !split(folder.path(), "none") {
            return;
        }
        let program = folder.path().join("program");
        let elf = open(&program);
        let link = link(&elf).unwrap();
        assert_eq!(link.name, b"program.debug");
        let image = ImageFile::open(File::open(&program).unwrap()).unwrap();
        let mut origin = origin(program.to_str().unwrap());
        origin.pid = std::process::id();
        let executable = Executable::read(image, origin).unwrap();
        let build = || {
            let budget = ByteBudget::new(0);
            unwind_image::rows(File::open(&program).unwrap(), Some(&executable), &budget).unwrap()
        };
        let rules = |kind: fn(&Rule) -> bool| build().rules.iter().filter(|rule| kind(rule)).count();
        let exact = rules(|rule| matches!(rule, Rule::Frame { .. }));
        let _ = std::fs::rename(folder.path().join("program.debug"), folder.path().join("elsewhere"));
        assert!(rules(|rule| matches!(rule, Rule::Frame { .. })) < exact, "{exact}");
        // Another file of that name is not taken.
        std::fs::copy("/bin/true", folder.path().join("program.debug")).unwrap();
        assert!(separate(&elf, Path::new("/"), &program).is_none());
    }

    #[test]
    fn names_lead_nowhere_else() {
        let root = Path::new("/proc/1/root");
        let places = linked(root, Path::new("/usr/bin/sed"), b"sed.debug");
        assert_eq!(places[1], Path::new("/proc/1/root/usr/bin/.debug/sed.debug"));
        for name in [&b"../sed.debug"[..], b"/etc/passwd", b"..", b"", b"a/b"] {
            assert!(linked(root, Path::new("/usr/bin/sed"), name).is_empty());
        }
    }
}
