//! example MODEL.qpk: samples from standard input (bytes, channels first, inputs one behind the other), outputs to standard
//! output, a line a sample.
mod qxr;

use std::error::Error;
use std::io::Read;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("one argument: a .qpk file")?;
    let mut network = qxr::Network::new(&std::fs::read(path)?)?;
    let mut pixels = Vec::new();
    std::io::stdin().read_to_end(&mut pixels)?;
    let sample: usize = network.input_sizes().iter().sum();
    for mut rest in pixels.chunks_exact(sample) {
        let mut inputs = Vec::new();
        for &size in network.input_sizes() {
            let (input, behind) = rest.split_at(size);
            inputs.push(input.to_vec());
            rest = behind;
        }
        let values: Vec<String> = network.run(&inputs)?.concat().iter().map(i32::to_string).collect();
        println!("{}", values.join(" "));
    }
    eprintln!("{}", network.isa());
    Ok(())
}
