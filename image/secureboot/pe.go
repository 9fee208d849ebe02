package secureboot

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrUnsigned says that a PE file bears no signature.
var ErrUnsigned = errors.New("not signed")

// SPC_INDIRECT_DATA and its parts, as in the Authenticode specification.
type indirectData struct {
	Data   peImageAttribute
	Digest digestInfo
}

type peImageAttribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type digestInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Digest    []byte
}

// peImageData is the DER of the SPC_PE_IMAGE_DATA that all signers write: no flags, and for a file name the text
// "<<<Obsolete>>>" in UTF-16.
var peImageData = append([]byte{0x30, 0x25, 0x03, 0x01, 0x00, 0xa0, 0x20, 0xa2, 0x1e, 0x80, 0x1c},
	"\x00<\x00<\x00<\x00O\x00b\x00s\x00o\x00l\x00e\x00t\x00e\x00>\x00>\x00>"...)

// peFile knows where in a PE file the fields lie that signing touches (Microsoft PE format, "Optional header").
type peFile struct {
	checksum  int // offset of CheckSum, 4 bytes
	directory int // offset of the certificate table's data directory entry, 8 bytes
	end       int // of the bytes that are hashed: where the certificate table begins, or the file's end
}

// Bounds in bytes of what is read into memory of a PE file: the part that holds its headers, and the signature.
const (
	maxHead  = 64 << 10
	maxTable = 1 << 20
)

func parsePE(data []byte) (*peFile, error) { return parseHead(data, int64(len(data))) }

// parseHead parses a file of size bytes that begins with data.
func parseHead(data []byte, whole int64) (*peFile, error) {
	if len(data) < 64 || string(data[:2]) != "MZ" {
		return nil, errors.New("no PE file")
	}
	pe := int64(binary.LittleEndian.Uint32(data[0x3c:]))
	if pe+24+168 > int64(len(data)) || string(data[pe:pe+4]) != "PE\x00\x00" {
		return nil, errors.New("no PE file")
	}
	optional := int(pe) + 24
	if magic := binary.LittleEndian.Uint16(data[optional:]); magic != 0x20b {
		return nil, fmt.Errorf("PE file has magic %#x, want a 64-bit one", magic)
	}
	if n := binary.LittleEndian.Uint32(data[optional+108:]); n < 5 {
		return nil, fmt.Errorf("PE file has %d data directories, want at least 5", n)
	}
	f := &peFile{checksum: optional + 64, directory: optional + 144, end: int(whole)}
	at := int64(binary.LittleEndian.Uint32(data[f.directory:]))
	size := int64(binary.LittleEndian.Uint32(data[f.directory+4:]))
	if at == 0 && size == 0 {
		return f, nil
	}
	if at < int64(f.directory+8) || at+size != whole {
		return nil, errors.New("PE file's certificate table is not at its end")
	}
	f.end = int(at)
	return f, nil
}

// hash is the Authenticode digest: of all but the checksum, the certificate table and its directory entry.
func (f *peFile) hash(r io.ReaderAt) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for _, part := range [][2]int{{0, f.checksum}, {f.checksum + 4, f.directory}, {f.directory + 8, f.end}} {
		size := int64(part[1] - part[0])
		n, err := io.Copy(h, io.NewSectionReader(r, int64(part[0]), size))
		if err == nil && n != size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return sum, err
		}
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// SignPE returns the PE file data with a signature by signer in place of those that it bears. The same data and key give
// the same bytes.
func SignPE(data []byte, signer Signer) ([]byte, error) {
	f, err := parsePE(data)
	if err != nil {
		return nil, fmt.Errorf("cannot sign: %w", err)
	}
	out := make([]byte, f.end, len(data)+4096)
	copy(out, data)
	out = pad8(out)
	clear(out[f.directory : f.directory+8])
	if f, err = parsePE(out); err != nil {
		return nil, fmt.Errorf("cannot sign: %w", err)
	}
	digest, err := f.hash(bytes.NewReader(out))
	if err != nil {
		return nil, fmt.Errorf("cannot sign: %w", err)
	}
	content, err := asn1.Marshal(indirectData{
		Data:   peImageAttribute{oidPEImageData, asn1.RawValue{FullBytes: peImageData}},
		Digest: digestInfo{sha256Identifier, digest[:]},
	})
	if err != nil {
		return nil, fmt.Errorf("cannot sign: %w", err)
	}
	cms, err := signContent(oidIndirectData, content, signer)
	if err != nil {
		return nil, fmt.Errorf("cannot sign: %w", err)
	}
	cms = pad8(cms)
	binary.LittleEndian.PutUint32(out[f.directory:], uint32(f.end))
	binary.LittleEndian.PutUint32(out[f.directory+4:], uint32(8+len(cms)))
	out = binary.LittleEndian.AppendUint32(out, uint32(8+len(cms))) // WIN_CERTIFICATE.dwLength
	out = append(out, 0x00, 0x02, 0x02, 0x00)                       // revision 2.0, WIN_CERT_TYPE_PKCS_SIGNED_DATA
	out = append(out, cms...)
	binary.LittleEndian.PutUint32(out[f.checksum:], peChecksum(out, f.checksum))
	return out, nil
}

// VerifyPE checks that a PE file is unchanged since the holder of one of the certificates signed it.
func VerifyPE(data []byte, certs ...*x509.Certificate) error {
	return VerifyPEFile(bytes.NewReader(data), int64(len(data)), certs...)
}

// VerifyPEFile is VerifyPE for a file of size bytes that need not be in memory.
func VerifyPEFile(r io.ReaderAt, size int64, certs ...*x509.Certificate) error {
	head := make([]byte, min(size, maxHead))
	if _, err := r.ReadAt(head, 0); err != nil && err != io.EOF {
		return err
	}
	f, err := parseHead(head, size)
	if err != nil {
		return err
	}
	if f.end == int(size) {
		return ErrUnsigned
	}
	if size-int64(f.end) > maxTable {
		return errors.New("certificate table is larger than any signature")
	}
	table := make([]byte, size-int64(f.end))
	if _, err := r.ReadAt(table, int64(f.end)); err != nil && err != io.EOF {
		return err
	}
	if len(table) < 8 || binary.LittleEndian.Uint32(table) != uint32(len(table)) ||
		string(table[4:8]) != "\x00\x02\x02\x00" {
		return errors.New("certificate table is not a single Authenticode signature")
	}
	content, err := verifyContent(table[8:], oidIndirectData, certs)
	if err != nil {
		return err
	}
	var signed indirectData
	if _, err := asn1.Unmarshal(content, &signed); err != nil {
		return fmt.Errorf("signed content: %w", err)
	}
	digest, err := f.hash(r)
	if err != nil {
		return err
	}
	if !signed.Digest.Algorithm.Algorithm.Equal(oidSHA256) || string(signed.Digest.Digest) != string(digest[:]) {
		return fmt.Errorf("changed after it was signed: its SHA-256 is %x, the signed one %x", digest, signed.Digest.Digest)
	}
	return nil
}

// peChecksum is the checksum of Microsoft's CheckSumMappedFile: the sum of the 16-bit words, carries added back in, and
// the length. Firmware ignores it; some tools complain when it is wrong.
func peChecksum(data []byte, field int) uint32 {
	var sum uint32
	for i := 0; i < len(data); i += 2 {
		if i == field || i == field+2 {
			continue
		}
		word := uint32(data[i])
		if i+1 < len(data) {
			word |= uint32(data[i+1]) << 8
		}
		sum += word
		sum = sum&0xffff + sum>>16
	}
	return sum + uint32(len(data))
}

// pad8 appends zeros up to the next multiple of 8.
func pad8(b []byte) []byte { return append(b, make([]byte, -len(b)&7)...) }
