// Package validate judges finished disk images: it reports what an image holds and every invariant that it breaks. The
// invariants are those of docs/architecture.md and docs/formats/: whoever changes how images are made changes them here.
package validate

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"allotment/image"
	"allotment/image/disk"
	"allotment/image/verity"
)

// Options say what an image is compared with.
type Options struct {
	// Cert is the certificate that must have signed the boot files. When it is nil it is taken from the image's own
	// db.auth, so that only the image's consistency is checked.
	Cert *x509.Certificate
}

// Image judges the raw disk of size bytes in r. The report is never nil; the error joins its breaches.
func Image(r io.ReaderAt, size int64, o Options) (*Report, error) {
	c := &check{r: r, cert: o.Cert, Report: &Report{Size: size, Breaches: []Breach{}}}
	c.table()
	c.boot()
	c.root()
	c.seed()
	c.other()
	var errs []error
	for _, b := range c.Breaches {
		errs = append(errs, b)
	}
	return c.Report, errors.Join(errs...)
}

// check is a judgement under way. Each step adds to the report and leaves behind what later steps compare with.
type check struct {
	*Report
	r    io.ReaderAt
	cert *x509.Certificate

	rootHash *verity.RootHash // from the UKI
	uname    string           // from the UKI
	manifest *image.Manifest
}

// breach notes a broken invariant of a part of the image.
func (c *check) breach(part, format string, args ...any) {
	c.Breaches = append(c.Breaches, Breach{part, fmt.Sprintf(format, args...)})
}

// partition returns the partition of the given name and its content, or false when the table has none.
func (c *check) partition(name string) (disk.Partition, *io.SectionReader, bool) {
	for _, p := range c.Partitions {
		if p.Name == name {
			return p, io.NewSectionReader(c.r, p.Start, p.Size), true
		}
	}
	return disk.Partition{}, nil, false
}

// sparse is what a reader may know of itself, so that large empty parts cost no time; disk.File does.
type sparse interface {
	// NextData returns an offset at or behind off before which there is nothing but zeros from off on.
	NextData(off int64) int64
}

// wantZeros notes a breach of a part unless the disk holds zeros from byte at to end.
func (c *check) wantZeros(part string, at, end int64) {
	buf, zeros := make([]byte, mib), make([]byte, mib)
	for ; at < end; at += mib {
		if s, ok := c.r.(sparse); ok {
			if at = s.NextData(at); at >= end {
				return
			}
		}
		n, err := c.r.ReadAt(buf[:min(mib, end-at)], at)
		if err != nil && err != io.EOF {
			c.breach(part, "%v", err)
			return
		}
		if !bytes.Equal(buf[:n], zeros[:n]) {
			c.breach(part, "not empty between bytes %d and %d of the disk", at, at+int64(n))
			return
		}
	}
}
