pub mod decode_stream;
