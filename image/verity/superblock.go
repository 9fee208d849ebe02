package verity

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Superblock is the first block of a hash device.
type Superblock struct {
	UUID       UUID
	DataBlocks int64  // blocks of BlockSize
	Salt       []byte // at most 256 bytes
}

// ErrNoSuperblock says that a device does not begin with a verity superblock at all, as an empty slot does not.
var ErrNoSuperblock = errors.New("no verity superblock")

// rawSuperblock is struct verity_sb of cryptsetup's lib/verity/verity.c, little endian.
type rawSuperblock struct {
	Signature     [8]byte
	Version       uint32
	HashType      uint32
	UUID          [16]byte
	Algorithm     [32]byte
	DataBlockSize uint32
	HashBlockSize uint32
	DataBlocks    uint64
	SaltSize      uint16
	_             [6]byte
	Salt          [256]byte
	_             [168]byte
}

var (
	signature = [8]byte{'v', 'e', 'r', 'i', 't', 'y'}
	algorithm = [32]byte{'s', 'h', 'a', '2', '5', '6'}
)

// marshal is the superblock's whole block.
func (s Superblock) marshal() []byte {
	raw := rawSuperblock{
		Signature: signature, Version: 1, HashType: 1, UUID: s.UUID, Algorithm: algorithm,
		DataBlockSize: BlockSize, HashBlockSize: BlockSize, DataBlocks: uint64(s.DataBlocks), SaltSize: uint16(len(s.Salt)),
	}
	copy(raw.Salt[:], s.Salt)
	b, err := binary.Append(nil, binary.LittleEndian, raw)
	if err != nil {
		panic("verity: " + err.Error()) // the structure has a fixed size
	}
	return padBlock(b)
}

// ReadSuperblock reads the superblock at the start of a hash device. It refuses what this package does not write:
// other versions, algorithms and block sizes.
func ReadSuperblock(r io.ReaderAt) (Superblock, error) {
	b := make([]byte, binary.Size(rawSuperblock{}))
	if err := readFull(r, b, 0); err != nil {
		return Superblock{}, fmt.Errorf("cannot read verity superblock: %w", err)
	}
	var raw rawSuperblock
	if err := binary.Read(bytes.NewReader(b), binary.LittleEndian, &raw); err != nil {
		return Superblock{}, fmt.Errorf("cannot read verity superblock: %w", err)
	}
	switch {
	case raw.Signature != signature:
		return Superblock{}, ErrNoSuperblock
	case raw.Version != 1 || raw.HashType != 1:
		return Superblock{}, fmt.Errorf("cannot use verity superblock: version %d, hash type %d, want 1 and 1",
			raw.Version, raw.HashType)
	case raw.Algorithm != algorithm:
		return Superblock{}, fmt.Errorf("cannot use verity superblock: algorithm %q, want sha256",
			bytes.TrimRight(raw.Algorithm[:], "\x00"))
	case raw.DataBlockSize != BlockSize || raw.HashBlockSize != BlockSize:
		return Superblock{}, fmt.Errorf("cannot use verity superblock: block sizes %d and %d, want %d",
			raw.DataBlockSize, raw.HashBlockSize, BlockSize)
	case raw.DataBlocks < 2 || raw.DataBlocks > maxDataBlocks:
		return Superblock{}, fmt.Errorf("cannot use verity superblock: %d data blocks, want 2 to %d",
			raw.DataBlocks, maxDataBlocks)
	case int(raw.SaltSize) > len(raw.Salt):
		return Superblock{}, fmt.Errorf("cannot use verity superblock: salt of %d bytes, want at most %d",
			raw.SaltSize, len(raw.Salt))
	}
	return Superblock{UUID: raw.UUID, DataBlocks: int64(raw.DataBlocks), Salt: raw.Salt[:raw.SaltSize]}, nil
}

// DataSize is the size in bytes of the data that the tree covers.
func (s Superblock) DataSize() int64 { return s.DataBlocks * BlockSize }

// TableLine is the parameter string of the kernel's dm-verity target, which begins at sector 0 and is DataSize long.
// Devices are paths or MAJOR:MINOR; options are those of the target, such as panic_on_corruption.
func (s Superblock) TableLine(dataDevice, hashDevice string, root RootHash, options ...string) string {
	salt := "-" // the target's form of an empty salt
	if len(s.Salt) > 0 {
		salt = hex.EncodeToString(s.Salt)
	}
	line := fmt.Sprintf("1 %s %s %d %d %d 1 sha256 %s %s", dataDevice, hashDevice, BlockSize, BlockSize, s.DataBlocks,
		root, salt)
	if len(options) > 0 {
		line += fmt.Sprintf(" %d %s", len(options), strings.Join(options, " "))
	}
	return line
}
