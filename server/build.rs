//! Embeds the demo photographs: `mixfeed demo` and `mixfeed preview` need no other file.

use std::{env, error::Error, fmt::Write, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../demo-data/photos").canonicalize()?;
    println!("cargo:rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    for class in fs::read_dir(&root)? {
        let class = class?;
        for file in fs::read_dir(class.path())? {
            let name =
                format!("{}/{}", class.file_name().to_string_lossy(), file?.file_name().to_string_lossy());
            files.push(name);
        }
    }
    files.sort();
    let mut code = String::from("&[\n");
    for name in &files {
        let class = name.split('/').next().unwrap_or_default();
        writeln!(code, "({name:?}, {class:?}, include_bytes!({:?})),", root.join(name))?;
    }
    code.push(']');
    fs::write(Path::new(&env::var("OUT_DIR")?).join("photos.rs"), code)?;
    Ok(())
}
