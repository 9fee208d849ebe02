package backup

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"allotment/api"
	"allotment/updater/snapshot"
)

// readme is what somebody reads who has nothing but the export.
const readme = `This is all that %s has kept on its server, as of %s.
It can be read and taken over without that server's software.

settings.toml          what was set: name, domain, and the settings of each part (TOML)
directory/             people, groups, collectives and offices, as LDIF (RFC 2849): every directory server reads it
calendar/              one folder per member and calendar or address book; .ics files are appointments and tasks
                       (iCalendar, RFC 5545), .vcf files are people (vCard, RFC 6350): every calendar program imports them
web/                   the web site: wordpress.xml in WordPress's own form for moving a site (WXR), the database as SQL,
                       and all pictures and files
chat/                  messages, as JSON in messages.json and as an SQLite database, and the files that members sent

Folders of parts that this server did not have are missing. What other parts there are, their folders' names say.
Passwords are in it only as hashes, and no keys. Keep it as safe as the server was: it holds what members have written.
`

// missing is what somebody reads first whose export is not whole.
const missing = `Not everything is in this export. What could not be written, and why:

%s

Folders of these parts are missing, or hold what was written at an earlier time.
`

// Export writes all of the organisation's data in open formats as a tar file. One whose end is missing is not whole. What a
// module could not write does not keep the others' from being written: a file of the export says it, and the status.
func (s *Service) Export(ctx context.Context, w io.Writer) (err error) {
	end, err := s.begin(api.BackupExporting)
	if err != nil {
		return err
	}
	defer end()
	modules := s.config.Box.Modules()
	if err := s.tidy(); err != nil {
		return err
	}
	lacking := errors.Join(s.dump(ctx, modules), s.exportSteps(ctx, modules))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	defer func() { err = errors.Join(err, snapshot.Remove(s.config.Root, snapshot.Backup)) }()
	s.doing("taking a copy of everything")
	if err := snapshot.Take(s.config.Root, snapshot.Backup); err != nil {
		return err
	}
	s.doing("writing the export")
	out := &exportWriter{ctx: ctx, tar: tar.NewWriter(w), now: s.config.Now()}
	name, settings := s.config.Box.Settings()
	out.text("README.txt", fmt.Sprintf(readme, name, out.now.UTC().Format(time.RFC1123)))
	if lacking != nil {
		out.text("MISSING.txt", fmt.Sprintf(missing, lacking))
	}
	out.text("settings.toml", settings)
	for _, m := range modules {
		for _, v := range openVolumes(m) {
			out.folder(filepath.Join(snapshot.Path(s.config.Root, snapshot.Backup), "volumes", m.Name, v), path.Join(m.Name, v))
		}
	}
	return errors.Join(out.close(), s.exported(lacking))
}

// exported notes how an export that has come to its end has gone.
func (s *Service) exported(lacking error) error {
	e := api.BackupExport{Time: s.config.Now().UTC(), OK: lacking == nil}
	if !e.OK {
		e.Problem = lacking.Error()
		s.config.Box.Tell(api.Bad, "the export was written, but not everything is in it: "+e.Problem)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history.Export = &e
	return s.store.keep(historyFile, s.history)
}

// exportSteps has every module write what it has in no open format otherwise.
func (s *Service) exportSteps(ctx context.Context, modules []Module) error {
	var errs []error
	for _, m := range modules {
		if m.Steps == nil || m.Steps.Export == nil {
			continue
		}
		s.doing("preparing %s", m.Title)
		if err := s.config.Box.Step(ctx, m.Name, "export"); err != nil {
			errs = append(errs, fmt.Errorf("%s could not be prepared: %w", m.Title, err))
		}
	}
	return errors.Join(errs...)
}

// openVolumes are the module's volumes that hold open formats.
func openVolumes(m Module) []string {
	if m.Steps == nil {
		return nil
	}
	return m.Steps.Open
}

// exportWriter writes a tar file and remembers the first error.
type exportWriter struct {
	ctx context.Context
	tar *tar.Writer
	now time.Time
	err error
}

func (w *exportWriter) close() error {
	if w.err != nil {
		return w.err
	}
	return w.tar.Close()
}

func (w *exportWriter) text(name, content string) {
	if w.err != nil {
		return
	}
	w.err = w.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: w.now, Format: tar.FormatPAX})
	if w.err == nil {
		_, w.err = io.WriteString(w.tar, content)
	}
}

// folder writes the files of a folder below the name; nothing where there is none.
func (w *exportWriter) folder(dir, name string) {
	if w.err != nil {
		return
	}
	w.err = filepath.WalkDir(dir, func(at string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && at == dir:
			return nil
		case err != nil:
			return err
		case w.ctx.Err() != nil:
			return w.ctx.Err()
		case !e.Type().IsRegular():
			return nil
		}
		rel, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		return w.file(at, path.Join(name, filepath.ToSlash(rel)))
	})
}

func (w *exportWriter) file(at, name string) error {
	f, err := os.Open(at)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	err = w.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: info.Size(), ModTime: info.ModTime(), Format: tar.FormatPAX})
	if err != nil {
		return err
	}
	_, err = io.Copy(w.tar, f)
	return err
}
