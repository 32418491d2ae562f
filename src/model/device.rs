use candle_core::Device;

use crate::checkpoint::Error;

/// Opens a device by its name: `cpu`, `cuda:N` or `metal`.
///
/// # Errors
/// [`Error::NoDevice`] when this build or this machine has no such device.
pub fn open_device(name: &str) -> Result<Device, Error> {
    let refuse = |why: String| Error::NoDevice(format!("device '{name}' cannot be used: {why}"));
    match name.split_once(':') {
        None if name == "cpu" => Ok(Device::Cpu),
        None if name == "metal" => {
            if !cfg!(feature = "metal") {
                return Err(refuse("this build has no Metal support (build with --features metal)".to_owned()));
            }
            Device::new_metal(0).map_err(|error| refuse(error.to_string()))
        }
        Some(("cuda", ordinal)) => {
            let ordinal = ordinal.parse().map_err(|_| refuse("write cuda:0, cuda:1, …".to_owned()))?;
            if !cfg!(feature = "cuda") {
                return Err(refuse("this build has no CUDA support (build with --features cuda)".to_owned()));
            }
            Device::new_cuda(ordinal).map_err(|error| refuse(error.to_string()))
        }
        _ => Err(refuse("devices are cpu, cuda:N and metal".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_devices_are_refused_by_name() {
        assert!(open_device("cpu").is_ok());
        for name in ["tpu", "cuda", "cuda:x", "cpu:0", ""] {
            let complaint = open_device(name).unwrap_err().to_string();
            assert!(complaint.contains(&format!("'{name}'")), "{complaint}");
        }
    }
}
