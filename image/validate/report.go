package validate

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"allotment/image"
	"allotment/image/disk"
)

// Report says what an image holds.
type Report struct {
	Name        string           `json:"name"` // of the profile
	Title       string           `json:"title"`
	Version     image.Version    `json:"version"`
	Arch        image.Arch       `json:"arch"`
	Kernel      string           `json:"kernel"`
	Loader      string           `json:"loader"` // boot loader for UEFI, with its version
	Epoch       int64            `json:"epoch"`  // Unix time in seconds
	Size        int64            `json:"size"`   // of the disk, bytes
	Partitions  []disk.Partition `json:"partitions"`
	RootHash    string           `json:"rootHash"`
	CommandLine string           `json:"commandLine"`
	Files       []File           `json:"files"` // of the EFI system partition
	Modules     []string         `json:"modules"`
	Layers      []image.Layer    `json:"layers"`
	Room        []Room           `json:"room"`
	Breaches    []Breach         `json:"breaches"`
}

// File is a file of the EFI system partition.
type File struct {
	Path   string       `json:"path"`
	Size   int64        `json:"size"`
	SHA256 image.Digest `json:"sha256"`
	Signed bool         `json:"signed,omitempty"` // with a signature that holds
}

// Room is how full a partition is, in bytes.
type Room struct {
	Partition string `json:"partition"`
	Used      int64  `json:"used"`
	Size      int64  `json:"size"`
}

// Breach is an invariant that an image breaks.
type Breach struct {
	Part    string `json:"part"` // such as a partition's name or a file's path
	Problem string `json:"problem"`
}

// Error implements error.
func (b Breach) Error() string { return b.Part + ": " + b.Problem }

// Print writes the report for people.
func (r *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "profile\t%s (%s)\n", r.Name, r.Title)
	fmt.Fprintf(t, "version\t%s for %s\n", r.Version, r.Arch)
	fmt.Fprintf(t, "inputs of\t%s\n", time.Unix(r.Epoch, 0).UTC().Format(time.DateTime))
	fmt.Fprintf(t, "kernel\t%s\n", r.Kernel)
	fmt.Fprintf(t, "boot loader\t%s\n", r.Loader)
	fmt.Fprintf(t, "command line\t%s\n", r.CommandLine)
	fmt.Fprintf(t, "root hash\t%s\n", r.RootHash)
	fmt.Fprintf(t, "disk\t%s\n", size(r.Size))
	fmt.Fprintf(t, "\nPARTITION\tSTART\tSIZE\tUSED\tGUID\n")
	for _, p := range r.Partitions {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", p.Name, size(p.Start), size(p.Size), r.used(p.Name), p.GUID)
	}
	fmt.Fprintf(t, "\nFILE ON THE ESP\tSIZE\tSIGNED\tSHA-256\n")
	for _, f := range r.Files {
		signed := ""
		if f.Signed {
			signed = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", f.Path, size(f.Size), signed, f.SHA256.Short())
	}
	fmt.Fprintf(t, "\nLAYER\tSIZE\tFS-VERITY DIGEST\n")
	for _, l := range r.Layers {
		fmt.Fprintf(t, "%s\t%s\t%s\n", l.Name, size(l.Size), l.Digest.Hex())
	}
	if len(r.Modules) > 0 {
		fmt.Fprintf(t, "\nMODULES\n")
		for _, m := range r.Modules {
			fmt.Fprintf(t, "%s\n", m)
		}
	}
	if len(r.Breaches) == 0 {
		fmt.Fprintf(t, "\nEvery invariant holds.\n")
	} else {
		fmt.Fprintf(t, "\nBROKEN\t%d invariants\n", len(r.Breaches))
		for _, b := range r.Breaches {
			fmt.Fprintf(t, "%s\t%s\n", b.Part, b.Problem)
		}
	}
	return t.Flush()
}

// used is the room that is taken in a partition, where that is known.
func (r *Report) used(name string) string {
	for _, room := range r.Room {
		if room.Partition == name {
			return fmt.Sprintf("%s (%d %%)", size(room.Used), 100*room.Used/max(room.Size, 1))
		}
	}
	return ""
}

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
