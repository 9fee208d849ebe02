package delta

import (
	"bytes"

	"github.com/klauspost/compress/zstd"
)

// codec unpacks zstd frames (RFC 8878) within bounded memory. Its decoders are used again and again.
type codec struct {
	decoders [5]*zstd.Decoder
	patch    *zstd.Decoder
}

func options() []zstd.DOption {
	return []zstd.DOption{
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecodeBuffersBelow(0),
		zstd.WithDecoderMaxWindow(Window),
	}
}

// open unpacks a frame with decoder i, which must not be in use.
func (c *codec) open(i int, frame []byte) (*zstd.Decoder, error) {
	if c.decoders[i] == nil {
		d, err := zstd.NewReader(nil, options()...)
		if err != nil {
			return nil, err
		}
		c.decoders[i] = d
	}
	if err := c.decoders[i].Reset(bytes.NewReader(frame)); err != nil {
		return nil, malformed("%v", err)
	}
	return c.decoders[i], nil
}

// withDictionary unpacks a frame that was packed with a raw dictionary.
func (c *codec) withDictionary(frame, dictionary []byte) (*zstd.Decoder, error) {
	raw := zstd.WithDecoderDictRaw(0, dictionary)
	if c.patch == nil {
		d, err := zstd.NewReader(nil, append(options(), raw)...)
		if err != nil {
			return nil, err
		}
		c.patch = d
	}
	if err := c.patch.ResetWithOptions(bytes.NewReader(frame), raw); err != nil {
		return nil, malformed("%v", err)
	}
	return c.patch, nil
}
