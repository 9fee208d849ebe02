// Package varstore enrols Secure Boot keys in a virtual machine: it writes PK, KEK and db into a copy of the variable
// store of OVMF or AAVMF, which is what firmware would do when an owner enrols them by hand.
//
// Source: EDK2, MdePkg/Include/Pi/PiFirmwareVolume.h and MdeModulePkg/Include/Guid/VariableFormat.h.
package varstore

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"allotment/image/secureboot"
)

var (
	volumeGUID = secureboot.MustGUID("fff12b8d-7696-4c8b-a985-2747075b4f50") // gEfiSystemNvDataFvGuid
	storeGUID  = secureboot.MustGUID("aaf32c78-947b-439a-a180-2e144ec37792") // gEfiAuthenticatedVariableGuid
)

const (
	volumeHeader   = 56 // without its block map
	storeHeader    = 28
	variableHeader = 60 // AUTHENTICATED_VARIABLE_HEADER
	variableStart  = 0x55aa
	variableAdded  = 0x3f
	storeFormatted = 0x5a
	storeHealthy   = 0xfe
)

// Enrol copies the variable store in the file empty to the file out, which must not exist, and adds the keys. A machine
// started with it checks signatures: firmware turns Secure Boot on when it finds a PK.
func Enrol(empty, out string, k *secureboot.Keys) error {
	b, err := os.ReadFile(empty)
	if err != nil {
		return fmt.Errorf("cannot enrol keys: %w", err)
	}
	for _, c := range []struct {
		name secureboot.Variable
		cert *x509.Certificate
	}{{secureboot.PK, k.PK}, {secureboot.KEK, k.KEK}, {secureboot.DB, k.DB.Cert}} {
		if b, err = add(b, c.name, c.cert); err != nil {
			return fmt.Errorf("cannot enrol %s in %q: %w", c.name, empty, err)
		}
	}
	if _, err := os.Lstat(out); err == nil {
		return fmt.Errorf("cannot enrol keys: %w", &fs.PathError{Op: "create", Path: out, Err: fs.ErrExist})
	}
	tmp, err := os.CreateTemp(filepath.Dir(out), ".varstore-*")
	if err != nil {
		return fmt.Errorf("cannot enrol keys: %w", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if _, err := tmp.Write(b); err != nil {
		return fmt.Errorf("cannot enrol keys: %w", err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("cannot enrol keys: %w", err)
	}
	return os.Rename(tmp.Name(), out)
}

// add returns a copy of the store with a variable behind those that are there.
func add(store []byte, name secureboot.Variable, cert *x509.Certificate) ([]byte, error) {
	at, end, err := freeSpace(store, name)
	if err != nil {
		return nil, err
	}
	v := variable(name, secureboot.SignatureList(cert), secureboot.Time(cert.NotBefore))
	if at+len(v) > end {
		return nil, errors.New("variable store is full")
	}
	out := bytes.Clone(store)
	copy(out[at:], v)
	return out, nil
}

// freeSpace returns where the free space of the store begins and ends. A variable of the given name must not be there.
func freeSpace(b []byte, name secureboot.Variable) (at, end int, err error) {
	if len(b) < volumeHeader || [16]byte(b[16:]) != volumeGUID || string(b[40:44]) != "_FVH" {
		return 0, 0, errors.New("no EDK2 variable store: want OVMF_VARS or AAVMF_VARS of Debian")
	}
	start := int(binary.LittleEndian.Uint16(b[48:]))
	if start+storeHeader > len(b) || [16]byte(b[start:]) != storeGUID || b[start+20] != storeFormatted || b[start+21] != storeHealthy {
		return 0, 0, errors.New("no store of authenticated variables")
	}
	size := int64(binary.LittleEndian.Uint32(b[start+16:]))
	if int64(start)+size > int64(len(b)) {
		return 0, 0, errors.New("variable store is cut off")
	}
	end = start + int(size)
	for at = start + storeHeader; at+variableHeader <= end; {
		h := b[at:]
		if binary.LittleEndian.Uint16(h) != variableStart {
			break
		}
		nameSize, dataSize := int64(binary.LittleEndian.Uint32(h[36:])), int64(binary.LittleEndian.Uint32(h[40:]))
		next := int64(at) + variableHeader + nameSize + dataSize
		if next > int64(end) {
			return 0, 0, errors.New("variable store has a variable that does not end")
		}
		if h[2] == variableAdded && [16]byte(h[44:]) == name.Vendor() &&
			bytes.Equal(h[variableHeader:variableHeader+nameSize], append(name.UTF16(), 0, 0)) {
			return 0, 0, fmt.Errorf("variable %s is there already: want an empty store", name)
		}
		at = (int(next) + 3) &^ 3
	}
	return at, end, nil
}

// variable is one variable as the store holds it.
func variable(name secureboot.Variable, content []byte, stamp [16]byte) []byte {
	utf16 := append(name.UTF16(), 0, 0)
	vendor := name.Vendor()
	b := binary.LittleEndian.AppendUint16(nil, variableStart)
	b = append(b, variableAdded, 0)
	b = binary.LittleEndian.AppendUint32(b, secureboot.VariableAttributes)
	b = binary.LittleEndian.AppendUint64(b, 0) // monotonic count: unused
	b = append(b, stamp[:]...)
	b = binary.LittleEndian.AppendUint32(b, 0) // public key index: unused
	b = binary.LittleEndian.AppendUint32(b, uint32(len(utf16)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(content)))
	b = append(b, vendor[:]...)
	b = append(b, utf16...)
	return append(b, content...)
}
