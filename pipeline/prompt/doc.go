// Package prompt turns a conversation into token ids and token ids into text, with the checkpoint's own files.
//
// Template renders the chat template (Jinja) to one string. Tokenizer is the byte-level BPE of the Qwen family: it
// cuts out added tokens, normalises (NFC), splits with the checkpoint's regular expression, maps bytes to visible
// characters and merges pairs by rank. Both give what Hugging Face's tokenizers and transformers give, to the id.
// StreamDecoder decodes ids one by one and never emits half a character.
//
// All types are read-only after they are opened and safe for concurrent use, but for StreamDecoder, which belongs
// to one request.
package prompt
