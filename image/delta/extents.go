package delta

import (
	"cmp"
	"debug/pe"
	"errors"
	"io"
	"io/fs"
	"slices"

	"github.com/erofs/go-erofs"
)

// Extent is a range of a part that belongs together: a file's blocks in an EROFS image, a section of a UKI, or what lies
// between them.
type Extent struct {
	Path   string // of the file, or name of the section; empty: between them
	Offset int64  // bytes
	Size   int64  // bytes
}

// Extents returns the extents of a part, which cover all its bytes in order. A part that is neither EROFS nor PE is one
// extent.
func Extents(r io.ReaderAt, size int64) ([]Extent, error) {
	if files, err := erofs.Open(io.NewSectionReader(r, 0, size)); err == nil {
		found, err := fileExtents(files)
		if err != nil {
			return nil, err
		}
		return cover(found, size), nil
	}
	if program, err := pe.NewFile(io.NewSectionReader(r, 0, size)); err == nil {
		return cover(sections(program), size), nil
	}
	return cover(nil, size), nil
}

// fileExtents returns the whole blocks of the files of an EROFS image. The tails that lie among the inodes are left out, and
// the padding behind a last block counts as the file's.
func fileExtents(files fs.FS) ([]Extent, error) {
	var found []Extent
	err := fs.WalkDir(files, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		layout, ok := info.(interface{ DataRange() []erofs.DataRange })
		if !ok {
			return errors.New("the EROFS library does not say where files lie")
		}
		for _, d := range layout.DataRange() {
			if d.Offset > 0 && d.Offset%block == 0 && d.Size > 0 {
				found = append(found, Extent{path, d.Offset, (d.Size + block - 1) / block * block})
			}
		}
		return nil
	})
	return found, err
}

// sections returns the sections of a PE file.
func sections(program *pe.File) []Extent {
	var found []Extent
	for _, s := range program.Sections {
		found = append(found, Extent{s.Name, int64(s.Offset), int64(s.Size)})
	}
	return found
}

// cover sorts extents, drops those that overlap an earlier one, such as that of a file's second name, and fills the gaps.
func cover(found []Extent, size int64) []Extent {
	slices.SortStableFunc(found, func(a, b Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	var all []Extent
	var pos int64
	for _, e := range found {
		if e.Offset < pos || e.Size <= 0 || e.Offset > size || e.Size > size-e.Offset {
			continue
		}
		if e.Offset > pos {
			all = append(all, Extent{"", pos, e.Offset - pos})
		}
		all = append(all, e)
		pos = e.Offset + e.Size
	}
	if pos < size {
		all = append(all, Extent{"", pos, size - pos})
	}
	return all
}

// Cut splits extents into pieces of at most limit bytes, each beginning a multiple of limit behind its extent's beginning.
func Cut(extents []Extent, limit int64) []Extent {
	var all []Extent
	for _, e := range extents {
		for ; e.Size > limit; e.Offset, e.Size = e.Offset+limit, e.Size-limit {
			all = append(all, Extent{e.Path, e.Offset, limit})
		}
		all = append(all, e)
	}
	return all
}
