//! Programs into memory: ELF, scripts, the initial stack, the vDSO.
