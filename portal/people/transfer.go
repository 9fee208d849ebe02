package people

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"time"

	"allotment/portal/directory"
	"allotment/portal/web"
)

// importPage is what page import shows.
type importPage struct {
	Report  *directory.Report
	Counts  []string // such as "12 lines added"
	Lines   []importLine
	Trial   bool
	Format  string
	Group   string
	Content string   // the file in base64, for the second time
	Letters []string // names of those who were added and need a letter, since they have no address
	Groups  []web.Option
}

// importLine is what becomes of a line, in words.
type importLine struct {
	Line           int
	Who, Fate, Why string
	Bad            bool
}

func showImport(r *web.Request) error { return renderImport(r, importPage{}) }

func renderImport(r *web.Request, page importPage) error {
	titles, err := groupTitles(r)
	if err != nil {
		return err
	}
	page.Groups = []web.Option{{Value: "", Label: r.T("import.nogroup")}}
	for name, title := range titles {
		page.Groups = append(page.Groups, web.Option{Value: name, Label: title})
	}
	sortOptions(r.Language, page.Groups[1:])
	return r.Render("import", page)
}

// importPeople shows what would become of a list, or takes it in.
func importPeople(r *web.Request) error {
	content, err := importContent(r)
	if err != nil {
		return err
	}
	format := r.Form.Choice("format", "csv", "ldif")
	if !r.Form.OK() {
		return renderImport(r, importPage{})
	}
	page := importPage{Trial: r.Form.Value("do") == "", Format: format, Group: r.Form.Value("group"),
		Content: base64.StdEncoding.EncodeToString(content)}
	report, err := r.Directory.Import(r.Context(), bytes.NewReader(content),
		directory.ImportOptions{Format: format, DryRun: page.Trial, Group: page.Group})
	if errors.Is(err, directory.ErrUnavailable) || errors.Is(err, directory.ErrNotFound) {
		return err
	}
	if err != nil {
		var why any = web.Said(err.Error())
		if errors.Is(err, directory.ErrHeadings) {
			why = r.T("import.headings")
		}
		r.Form.Fail("file", "import.unreadable", "why", why)
		return renderImport(r, importPage{})
	}
	page.describe(r, &report)
	if !page.Trial {
		if err := makeMembers(r, report.Lines); err != nil {
			return err
		}
		r.Record("person.imported", "", map[string]string{"added": strconv.Itoa(report.Count(directory.Added)),
			"changed": strconv.Itoa(report.Count(directory.Changed))})
		if r.Form.Checked("welcome") {
			if page.Letters, err = r.Onboard.WelcomeAdded(r.Context(), r.Person.Name, report); err != nil {
				return err
			}
		}
	}
	return renderImport(r, page)
}

// makeMembers puts who was added into the group that everybody is in.
func makeMembers(r *web.Request, lines []directory.LineFate) error {
	for _, l := range lines {
		if l.Fate != directory.Added || l.Group {
			continue
		}
		if err := addMember(r, l.Name); err != nil {
			return err
		}
	}
	return nil
}

// importContent is the file that was sent, or the one of the trial.
func importContent(r *web.Request) ([]byte, error) {
	if again := r.Form.Value("content"); again != "" {
		b, err := base64.StdEncoding.DecodeString(again)
		if err != nil {
			return nil, web.Fail(http.StatusBadRequest, "problem.form")
		}
		return b, nil
	}
	var file multipart.File
	if r.HTTP.MultipartForm != nil {
		var err error
		if file, _, err = r.HTTP.FormFile("file"); err != nil && !errors.Is(err, http.ErrMissingFile) {
			return nil, err
		}
	}
	if file == nil {
		r.Form.Fail("file", "form.required")
		return nil, nil
	}
	defer file.Close()
	return io.ReadAll(file)
}

func (page *importPage) describe(r *web.Request, report *directory.Report) {
	page.Report = report
	for _, fate := range []directory.Fate{directory.Added, directory.Changed, directory.Skipped, directory.Refused} {
		if n := report.Count(fate); n > 0 {
			page.Counts = append(page.Counts, r.T("import.count", "n", n, "fate", r.T("import.fate."+string(fate))))
		}
	}
	for _, l := range report.Lines {
		line := importLine{Line: l.Line, Who: l.What, Fate: r.T("import.fate." + string(l.Fate)), Bad: l.Fate == directory.Refused}
		if l.Name != "" {
			line.Who = strings.TrimSpace(line.Who + " (" + l.Name + ")")
		}
		if l.Why != directory.WhyNothing {
			line.Why = r.T("import.why."+string(l.Why), "detail", l.Detail)
		}
		page.Lines = append(page.Lines, line)
	}
}

// export offers everybody as a file.
func export(r *web.Request) error {
	format := r.Query("format")
	mediaType := map[string]string{"csv": "text/csv; charset=utf-8", "ldif": "text/plain; charset=utf-8"}[format]
	if mediaType == "" {
		return web.ErrNotFound
	}
	var b bytes.Buffer
	if err := r.Directory.Export(r.Context(), &b, format); err != nil {
		return err
	}
	r.Record("person.exported", "", nil)
	return r.File("members-"+r.Now.Format(time.DateOnly)+"."+format, mediaType, b.Bytes())
}

// leaveCollective offers a collective as a file, and removes it.
func leaveCollective(r *web.Request) error {
	name := r.Path("collective")
	if !r.Form.Checked("sure") {
		r.Form.Fail("", "collectives.sure")
		return listCollectives(r)
	}
	people, err := r.Directory.PeopleOf(r.Context(), name)
	if err != nil {
		return err
	}
	for _, p := range people {
		if p.Name == r.Person.Name {
			return web.Fail(http.StatusConflict, "collectives.self")
		}
	}
	var b bytes.Buffer
	if err := r.Directory.Leave(r.Context(), name, &b); err != nil {
		return err
	}
	for _, p := range people {
		if err := r.Login.Forget(p.Name); err != nil {
			return err
		}
	}
	r.Record("collective.left", name, nil)
	return r.File(name+"-"+r.Now.Format(time.DateOnly)+".ldif", "text/plain; charset=utf-8", b.Bytes())
}
